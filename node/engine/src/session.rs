//! One sequence: its tokens and its keys and values.

use std::io;

use kernels::KvType;

use crate::kv_cache::KvCache;
use crate::model::Model;

/// A sequence being extended. What the cache holds is exactly `tokens`.
pub struct Session {
    pub(crate) tokens: Vec<u32>,
    pub(crate) kv: KvCache,
}

impl Session {
    /// An empty session with room for `n_ctx` tokens, whose keys and values are kept as `kv_type`.
    ///
    /// # Errors
    /// When the address range cannot be reserved.
    ///
    /// # Panics
    /// When the model's heads do not fit the type.
    pub fn new(model: &Model, kv_type: KvType, n_ctx: usize) -> io::Result<Session> {
        assert!(kv_type.fits(model.hyperparams().n_embd_head), "heads of {} in {kv_type}", model.hyperparams().n_embd_head);
        Ok(Session { tokens: Vec::with_capacity(n_ctx), kv: KvCache::new(model.hyperparams(), kv_type, n_ctx)? })
    }

    /// Tokens whose keys and values are held.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens there is room for.
    pub fn n_ctx(&self) -> usize {
        self.kv.n_ctx()
    }

    /// How keys and values are kept.
    pub fn kv_type(&self) -> KvType {
        self.kv.kv_type()
    }

    /// Tokens at the start of `prompt` that need no computing.
    pub fn common_prefix(&self, prompt: &[u32]) -> usize {
        self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count()
    }

    /// Another session that begins with the first `n` tokens of this one.
    ///
    /// # Errors
    /// When the address range cannot be reserved.
    pub fn fork(&self, model: &Model, n: usize) -> io::Result<Session> {
        let mut fork = Session::new(model, self.kv.kv_type(), self.n_ctx())?;
        fork.tokens.extend_from_slice(&self.tokens[..n]);
        fork.kv.used_mut(n).zip(self.kv.used(n)).for_each(|(to, from)| to.copy_from_slice(from));
        Ok(fork)
    }

    /// Forgets all but the first `n_kept` tokens and returns their memory.
    pub fn truncate(&mut self, n_kept: usize) {
        if n_kept < self.tokens.len() {
            self.kv.give_back(n_kept, self.tokens.len());
            self.tokens.truncate(n_kept);
        }
    }
}
