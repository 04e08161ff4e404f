//! Keys and values of one session: an address range reserved for the whole context, committed as it is touched.

use std::io;
use std::ops::Range;

use kernels::{KvPlanes, KvPlanesMut, KvType};

use crate::hyperparams::Hyperparams;
use crate::map::Reserved;

/// Planes start at multiples of this many bytes: a multiple of every page size in use (4, 16 and 64 KiB).
const PLANE_ALIGNMENT: usize = 64 << 10;

/// Keys and values, laid out `(n_layer, k|v, n_head_kv, n_ctx, n_embd_head)`.
pub(crate) struct KvCache {
    memory: Reserved,
    kv_type: KvType,
    n_ctx: usize,
    n_head_kv: usize,
    /// Bytes of a head at one position.
    row_bytes: usize,
    plane_bytes: usize,
}

impl KvCache {
    /// Reserves room for `n_ctx` positions.
    pub(crate) fn new(hyperparams: &Hyperparams, kv_type: KvType, n_ctx: usize) -> io::Result<KvCache> {
        let row_bytes = kv_type.row_bytes(hyperparams.n_embd_head);
        let plane_bytes = (n_ctx * row_bytes).next_multiple_of(PLANE_ALIGNMENT);
        Ok(KvCache {
            memory: Reserved::new(hyperparams.n_layer * 2 * hyperparams.n_head_kv * plane_bytes)?,
            kv_type,
            n_ctx,
            n_head_kv: hyperparams.n_head_kv,
            row_bytes,
            plane_bytes,
        })
    }

    /// Positions there is room for.
    pub(crate) fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Keys and values of one layer.
    pub(crate) fn planes(&self, layer: usize) -> KvPlanes<'_> {
        let (k, v) = self.memory[self.layer(layer)].split_at(self.n_head_kv * self.plane_bytes);
        KvPlanes { kv_type: self.kv_type, k, v, stride: self.plane_bytes }
    }

    /// Keys and values of one layer, for writing.
    pub(crate) fn planes_mut(&mut self, layer: usize) -> KvPlanesMut<'_> {
        let layer = self.layer(layer);
        let (k, v) = self.memory[layer].split_at_mut(self.n_head_kv * self.plane_bytes);
        KvPlanesMut { kv_type: self.kv_type, k, v, stride: self.plane_bytes }
    }

    pub(crate) fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Bytes of a head at one position.
    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Planes of all layers: keys and values of each head.
    pub(crate) fn n_planes(&self) -> usize {
        self.memory.len() / self.plane_bytes
    }

    /// The first `n` positions of every plane.
    pub(crate) fn used(&self, n: usize) -> impl Iterator<Item = &[u8]> {
        self.memory.chunks_exact(self.plane_bytes).map(move |plane| &plane[..n * self.row_bytes])
    }

    /// As [`KvCache::used`], for writing.
    pub(crate) fn used_mut(&mut self, n: usize) -> impl Iterator<Item = &mut [u8]> {
        let used = n * self.row_bytes;
        self.memory.chunks_exact_mut(self.plane_bytes).map(move |plane| &mut plane[..used])
    }

    /// Gives the memory of positions from `n_kept` to `n_used` back to the system.
    pub(crate) fn give_back(&mut self, n_kept: usize, n_used: usize) {
        for plane in (0..self.memory.len()).step_by(self.plane_bytes) {
            self.memory.give_back(plane + n_kept * self.row_bytes, (n_used - n_kept) * self.row_bytes);
        }
    }

    fn layer(&self, index: usize) -> Range<usize> {
        let layer_bytes = 2 * self.n_head_kv * self.plane_bytes;
        index * layer_bytes..(index + 1) * layer_bytes
    }
}

/// Bytes that keys and values of `n_positions` commit.
pub(crate) fn kv_bytes(hyperparams: &Hyperparams, kv_type: KvType, n_positions: usize) -> usize {
    2 * hyperparams.n_layer * hyperparams.n_head_kv * kv_type.row_bytes(hyperparams.n_embd_head) * n_positions
}
