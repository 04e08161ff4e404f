//! Keys and values of one session: an address range reserved for the whole context, committed as it is touched.

use std::io;

use half::f16;
use kernels::KvPlanes;

use crate::hyperparams::Hyperparams;
use crate::map::Reserved;

/// Planes start at multiples of this many bytes: a multiple of every page size in use (4, 16 and 64 KiB).
const PLANE_ALIGNMENT: usize = 64 << 10;

/// Keys and values in f16, laid out `(n_layer, k|v, n_head_kv, n_ctx, n_embd_head)`.
pub(crate) struct KvCache {
    memory: Reserved,
    n_ctx: usize,
    n_head_kv: usize,
    n_embd_head: usize,
    plane_bytes: usize,
}

impl KvCache {
    /// Reserves room for `n_ctx` positions.
    pub(crate) fn new(hyperparams: &Hyperparams, n_ctx: usize) -> io::Result<KvCache> {
        let plane_bytes = plane_bytes(hyperparams, n_ctx);
        Ok(KvCache {
            memory: Reserved::new(hyperparams.n_layer * 2 * hyperparams.n_head_kv * plane_bytes)?,
            n_ctx,
            n_head_kv: hyperparams.n_head_kv,
            n_embd_head: hyperparams.n_embd_head,
            plane_bytes,
        })
    }

    /// Positions there is room for.
    pub(crate) fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Writes keys and values of one position and layer, `(n_head_kv · n_embd_head)` each.
    pub(crate) fn write(&mut self, layer: usize, pos: usize, k: &[f32], v: &[f32]) {
        assert!(pos < self.n_ctx, "position {pos} is beyond the context of {}", self.n_ctx);
        let width = self.n_embd_head;
        for (kind, values) in [k, v].into_iter().enumerate() {
            for (head, values) in values.chunks_exact(width).enumerate() {
                let start = self.plane(layer, kind, head) + pos * width * size_of::<f16>();
                let place: &mut [f16] = bytemuck::cast_slice_mut(&mut self.memory[start..start + width * size_of::<f16>()]);
                place.iter_mut().zip(values).for_each(|(place, value)| *place = f16::from_f32(*value));
            }
        }
    }

    /// Keys and values of one layer.
    pub(crate) fn planes(&self, layer: usize) -> KvPlanes<'_> {
        let half = self.n_head_kv * self.plane_bytes;
        let start = self.plane(layer, 0, 0);
        let (k, v) = self.memory[start..start + 2 * half].split_at(half);
        KvPlanes { k: bytemuck::cast_slice(k), v: bytemuck::cast_slice(v), stride: self.plane_bytes / size_of::<f16>() }
    }

    /// Gives the memory of positions from `n_kept` to `n_used` back to the system.
    pub(crate) fn give_back(&mut self, n_kept: usize, n_used: usize) {
        let row = self.n_embd_head * size_of::<f16>();
        for plane in (0..self.memory.len()).step_by(self.plane_bytes) {
            self.memory.give_back(plane + n_kept * row, (n_used - n_kept) * row);
        }
    }

    fn plane(&self, layer: usize, kind: usize, head: usize) -> usize {
        ((layer * 2 + kind) * self.n_head_kv + head) * self.plane_bytes
    }
}

/// Address bytes one head's keys or values take.
fn plane_bytes(hyperparams: &Hyperparams, n_ctx: usize) -> usize {
    (n_ctx * hyperparams.n_embd_head * size_of::<f16>()).next_multiple_of(PLANE_ALIGNMENT)
}

/// Bytes that keys and values of `n_positions` commit.
pub(crate) fn kv_bytes(hyperparams: &Hyperparams, n_positions: usize) -> usize {
    2 * hyperparams.n_layer * hyperparams.n_embd_kv() * n_positions * size_of::<f16>()
}
