//! What a model will need, against what the machine has, before it is opened.

use kernels::KvType;

use crate::hyperparams::Hyperparams;
use crate::kv_cache::kv_bytes;

/// Anonymous memory beside keys and values: activations of a batch, vocabulary tables, tokenizer cache.
const SCRATCH_BYTES: u64 = 64 << 20;

/// Bytes a model needs to serve `n_sessions` sessions of `n_ctx` tokens: its file in the page cache, keys and values, and
/// scratch.
pub fn needed_bytes(hyperparams: &Hyperparams, file_bytes: u64, kv_type: KvType, n_ctx: usize, n_sessions: usize) -> u64 {
    let sessions = (kv_bytes(hyperparams, kv_type, n_ctx) as u64).saturating_mul(n_sessions as u64);
    sessions.saturating_add(file_bytes).saturating_add(SCRATCH_BYTES)
}

/// The longest context with which `n_sessions` sessions fit into `available` bytes, at most `n_ctx`; `None` when not even
/// `n_ctx_min` does.
pub fn fitting_n_ctx(
    hyperparams: &Hyperparams,
    file_bytes: u64,
    kv_type: KvType,
    n_ctx: usize,
    n_ctx_min: usize,
    n_sessions: usize,
    available: u64,
) -> Option<usize> {
    let fixed = needed_bytes(hyperparams, file_bytes, kv_type, 0, n_sessions);
    let per_position = (kv_bytes(hyperparams, kv_type, 1) as u64).saturating_mul(n_sessions as u64);
    let room = usize::try_from(available.checked_sub(fixed)? / per_position).unwrap_or(usize::MAX);
    (room >= n_ctx_min.min(n_ctx)).then(|| room.min(n_ctx))
}

/// Memory the machine has, capped by the control group's limit. `None` where the system does not say.
pub fn total_bytes() -> Option<u64> {
    let total = meminfo("MemTotal:")?;
    Some(control_group("memory.max").map_or(total, |max| max.min(total)))
}

fn meminfo(key: &str) -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn control_group(name: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok()
}

/// Memory the system could give now without swapping: free, plus what caches would return (`MemAvailable` of Linux), capped
/// by the control group's limit. `None` where the system does not say.
pub fn available_bytes() -> Option<u64> {
    let available = meminfo("MemAvailable:")?;
    let in_group = control_group("memory.max").map(|max| max.saturating_sub(control_group("memory.current").unwrap_or(0)));
    Some(in_group.map_or(available, |group| group.min(available)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyperparams::{Family, LayerKind, Mixing};
    use kernels::{Gate, RopePairs};

    #[test]
    fn context_shrinks_to_fit() {
        let h = Hyperparams {
            family: Family::Llama,
            n_layer: 2,
            n_embd: 8,
            n_ff: 8,
            n_head: 2,
            n_head_kv: 1,
            n_embd_head: 4,
            n_ctx_train: 100,
            norm_epsilon: 1e-5,
            pooling: None,
            n_ctx_original: 100,
            ropes: Vec::new(),
            rope_pairs: RopePairs::Adjacent,
            layers: vec![LayerKind { window: None, rope: None, mixing: Mixing::Attention }; 2],
            gate: Gate::Silu,
            experts: None,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            attention_scale: 0.5,
            attention_cap: None,
            logit_scale: 1.0,
            logit_cap: None,
        };
        // 2 layers × k and v × 4 values × 2 bytes.
        assert_eq!(kv_bytes(&h, KvType::F16, 1), 32);
        let check = |available, expected| assert_eq!(fitting_n_ctx(&h, 1000, KvType::F16, 100, 10, 1, available), expected);
        check(SCRATCH_BYTES + 1000 + 3200, Some(100));
        check(SCRATCH_BYTES + 1000 + 1600, Some(50));
        check(SCRATCH_BYTES + 1000 + 32, None);
        check(0, None);
        // Numbers of a crafted file whose product is beyond what can be counted.
        let vast = Hyperparams { n_head_kv: 1 << 20, n_embd_head: 1 << 20, layers: vec![h.layers[0]; 1024], ..h };
        assert_eq!(kv_bytes(&vast, KvType::F16, 1 << 31), usize::MAX);
        assert_eq!(needed_bytes(&vast, 1000, KvType::F16, 1 << 31, 4), u64::MAX);
        assert!(crate::kv_cache::KvCache::new(&vast, KvType::F16, 1 << 31).is_err());
    }
}
