//! From the product of q, k and v to what attention reads, row by row in one region: bias, head norms, rope, and keys and values
//! to their places.

use crate::operators::{Turn, rms_norm_heads, rope};
use crate::pool::Start;
use crate::{KvPlanesMut, Pool, RopePairs};

/// Rows of one session at successive positions.
pub struct Heads<'a> {
    /// `(n_head + 2 n_head_kv) · n_embd_head` values added to each row.
    pub bias: Option<&'a [f32]>,
    /// Weights of the norms of each head of q and of k.
    pub q_norm: Option<&'a [f32]>,
    pub k_norm: Option<&'a [f32]>,
    pub rms_epsilon: f32,
    /// `(n_rows, n_rot / 2)`
    pub turns: &'a [Turn],
    pub rope_pairs: RopePairs,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub n_embd_head: usize,
    /// Position of the first row.
    pub pos: usize,
}

impl Heads<'_> {
    /// Takes rows of q, k and v side by side, which are used up, to queries with their positions, `(n_rows, n_head ·
    /// n_embd_head)`, and to keys and values at their positions.
    ///
    /// # Panics
    /// When shapes do not fit, or a position lies beyond the planes.
    pub fn place(&self, pool: &Pool, qkv: &mut [f32], q: &mut [f32], kv: &mut KvPlanesMut) {
        let (n_q, n_kv) = (self.n_head * self.n_embd_head, self.n_head_kv * self.n_embd_head);
        let n_rows = qkv.len() / (n_q + 2 * n_kv);
        let row_bytes = kv.kv_type.row_bytes(self.n_embd_head);
        assert_eq!(q.len(), n_rows * n_q, "a row of queries for each row");
        assert!(n_rows == 0 || self.turns.len().is_multiple_of(n_rows), "turns for each row");
        assert!((self.pos + n_rows) * row_bytes <= kv.stride, "position {} is beyond the context", self.pos + n_rows);
        assert!(kv.k.len() >= self.n_head_kv * kv.stride && kv.v.len() == kv.k.len(), "a plane for each head");
        let n_turns = self.turns.len() / n_rows.max(1);
        let (kv_type, stride) = (kv.kv_type, kv.stride);
        let (q, k, v) = (Start(q.as_mut_ptr()), Start(kv.k.as_mut_ptr()), Start(kv.v.as_mut_ptr()));
        pool.run_rows(qkv, n_q + 2 * n_kv, |index, row| {
            if let Some(bias) = self.bias {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
            let (q_row, kv_row) = row.split_at_mut(n_q);
            let (k_row, v_row) = kv_row.split_at_mut(n_kv);
            for (heads, norm) in [(&mut *q_row, self.q_norm), (&mut *k_row, self.k_norm)] {
                if let Some(norm) = norm {
                    rms_norm_heads(pool.level(), heads, norm, self.rms_epsilon);
                }
                rope(pool.level(), heads, self.n_embd_head, &self.turns[index * n_turns..][..n_turns], self.rope_pairs);
            }
            // SAFETY: the row is inside the queries, and belongs to this part alone.
            unsafe { q.at(index * n_q, n_q) }.copy_from_slice(q_row);
            for head in 0..self.n_head_kv {
                let at = head * stride + (self.pos + index) * row_bytes;
                for (values, planes) in [(&*k_row, &k), (&*v_row, &v)] {
                    let values = &values[head * self.n_embd_head..][..self.n_embd_head];
                    // SAFETY: the position is inside the plane, as asserted above, and belongs to this part alone.
                    kv_type.store(pool.level(), values, unsafe { planes.at(at, row_bytes) });
                }
            }
        });
    }
}
