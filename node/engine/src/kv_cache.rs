//! Keys and values of one session: an address range reserved for the whole context, committed as it is touched.

use std::io;
use std::ops::Range;

use kernels::{Convolution, KvPlanes, KvPlanesMut, KvType};

use crate::hyperparams::{Hyperparams, Mixing};
use crate::map::Reserved;

/// Planes start at multiples of this many bytes: a multiple of every page size in use (4, 16 and 64 KiB).
const PLANE_ALIGNMENT: usize = 64 << 10;

/// Planes of rows, one a position: for each layer with attention keys and values of each key/value head, for one with a convolution
/// what it keeps of each position.
pub(crate) struct KvCache {
    memory: Reserved,
    kv_type: KvType,
    n_ctx: usize,
    layers: Vec<Planes>,
}

/// Where the planes of a layer lie, one after the other.
#[derive(Clone, Copy)]
struct Planes {
    offset: usize,
    n: usize,
    /// Bytes of a row.
    row_bytes: usize,
    plane_bytes: usize,
}

impl Planes {
    fn range(self) -> Range<usize> {
        self.offset..self.offset + self.n * self.plane_bytes
    }
}

/// Planes of each layer and bytes of their rows.
fn rows(h: &Hyperparams, kv_type: KvType) -> impl Iterator<Item = (usize, usize)> {
    h.layers.iter().map(move |layer| match layer.mixing {
        Mixing::Attention => (2 * h.n_head_kv, kv_type.row_bytes(h.n_embd_head)),
        Mixing::Convolution => (1, Convolution::row_bytes(h.n_embd)),
    })
}

impl KvCache {
    /// Reserves room for `n_ctx` positions.
    pub(crate) fn new(hyperparams: &Hyperparams, kv_type: KvType, n_ctx: usize) -> io::Result<KvCache> {
        let mut end = 0usize;
        let layers = rows(hyperparams, kv_type).map(|(n, row_bytes)| {
            let plane_bytes = n_ctx.checked_mul(row_bytes)?.checked_next_multiple_of(PLANE_ALIGNMENT)?;
            let planes = Planes { offset: end, n, row_bytes, plane_bytes };
            end = end.checked_add(n.checked_mul(plane_bytes)?)?;
            Some(planes)
        });
        let layers = layers.collect::<Option<Vec<_>>>().ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(KvCache { memory: Reserved::new(end)?, kv_type, n_ctx, layers })
    }

    /// Positions there is room for.
    pub(crate) fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Keys and values of one layer.
    pub(crate) fn planes(&self, layer: usize) -> KvPlanes<'_> {
        let planes = self.layers[layer];
        let (k, v) = self.memory[planes.range()].split_at(planes.n / 2 * planes.plane_bytes);
        KvPlanes { kv_type: self.kv_type, k, v, stride: planes.plane_bytes }
    }

    /// Keys and values of one layer, for writing.
    pub(crate) fn planes_mut(&mut self, layer: usize) -> KvPlanesMut<'_> {
        let planes = self.layers[layer];
        let (k, v) = self.memory[planes.range()].split_at_mut(planes.n / 2 * planes.plane_bytes);
        KvPlanesMut { kv_type: self.kv_type, k, v, stride: planes.plane_bytes }
    }

    /// What one layer's convolution has kept.
    pub(crate) fn kept_mut(&mut self, layer: usize) -> &mut [u8] {
        let range = self.layers[layer].range();
        &mut self.memory[range]
    }

    pub(crate) fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Planes of all layers, and bytes of all their rows of one position.
    pub(crate) fn measures(&self) -> (usize, usize) {
        let add = |(n, bytes): (usize, usize), planes: &Planes| (n + planes.n, bytes + planes.n * planes.row_bytes);
        self.layers.iter().fold((0, 0), add)
    }

    /// The first `n` positions of every plane.
    pub(crate) fn used(&self, n: usize) -> impl Iterator<Item = &[u8]> {
        self.starts().map(move |(start, planes)| &self.memory[start..start + n * planes.row_bytes])
    }

    /// As [`KvCache::used`], for writing.
    pub(crate) fn used_mut(&mut self, n: usize) -> impl Iterator<Item = &mut [u8]> {
        let lens: Vec<(usize, usize)> = self.starts().map(|(_, planes)| (planes.plane_bytes, n * planes.row_bytes)).collect();
        let mut rest = &mut self.memory[..];
        lens.into_iter().map(move |(plane_bytes, used)| {
            let plane;
            (plane, rest) = std::mem::take(&mut rest).split_at_mut(plane_bytes);
            &mut plane[..used]
        })
    }

    /// Gives the memory of positions from `n_kept` to `n_used` back to the system.
    pub(crate) fn give_back(&mut self, n_kept: usize, n_used: usize) {
        for planes in &self.layers {
            for start in (0..planes.n).map(|i| planes.offset + i * planes.plane_bytes) {
                self.memory.give_back(start + n_kept * planes.row_bytes, (n_used - n_kept) * planes.row_bytes);
            }
        }
    }

    /// Where each plane begins, with its layer's measures.
    fn starts(&self) -> impl Iterator<Item = (usize, Planes)> {
        self.layers.iter().flat_map(|planes| (0..planes.n).map(|i| (planes.offset + i * planes.plane_bytes, *planes)))
    }
}

/// What [`KvCache::measures`] says of the sessions of a model: whether a saved one fits it.
pub(crate) fn measures(h: &Hyperparams, kv_type: KvType) -> (usize, usize) {
    (rows(h, kv_type).map(|(n, _)| n).sum(), kv_bytes(h, kv_type, 1))
}

/// Bytes that keys and values of `n_positions` commit.
pub(crate) fn kv_bytes(h: &Hyperparams, kv_type: KvType, n_positions: usize) -> usize {
    // What no machine has stays more than any machine has.
    let of_position = rows(h, kv_type).fold(0usize, |sum, (n, row_bytes)| sum.saturating_add(n.saturating_mul(row_bytes)));
    of_position.saturating_mul(n_positions)
}
