//! How far rotary positions turn each pair of a head, as the header and the file's factors say.

use crate::hyperparams::HyperparamsError;
use crate::keys::{Keys, WIDTH_MAX};

/// Rotary positions, the same for all layers that use them.
#[derive(Debug, Clone)]
pub struct Rope {
    /// Angle per position of each rotated pair; `2 · frequencies.len()` values of a head are rotated.
    pub frequencies: Vec<f32>,
    /// Those of a session whose context is beyond the first number, where they differ (LongRoPE, of Phi 3).
    pub long: Option<(usize, Vec<f32>)>,
    /// What sine and cosine are multiplied by.
    pub magnitude: f32,
}

impl Rope {
    /// Frequencies `base^(−2i / n_rot)`, divided by a linear scaling factor where the file has one. Factors of pairs are
    /// tensors, see [`Rope::divide`] and [`Rope::lengthen`].
    pub(crate) fn read(keys: &Keys, n_embd_head: usize, base: f32) -> Result<Rope, HyperparamsError> {
        let n_rot = keys.optional_count("rope.dimension_count", WIDTH_MAX)?.unwrap_or(n_embd_head);
        if n_rot > n_embd_head || n_rot % 2 != 0 {
            return Err(keys.wrong("rope.dimension_count", n_rot, format!("an even number up to the head width {n_embd_head}")));
        }
        let factor = match keys.text("rope.scaling.type").unwrap_or("none") {
            "none" | "longrope" => 1.0,
            "linear" => keys.positive("rope.scaling.factor", Some(1.0))?,
            other => return Err(keys.wrong("rope.scaling.type", other, "none, linear or longrope".into())),
        };
        let frequencies = frequencies(base, n_rot).map(|frequency| frequency / factor).collect();
        Ok(Rope { frequencies, long: None, magnitude: keys.positive("rope.scaling.attn_factor", Some(1.0))? })
    }

    /// Rope that turns no more than this base says, whatever scaling the file names: Gemma 3's layers with a window.
    pub(crate) fn unscaled(n_embd_head: usize, base: f32) -> Rope {
        Rope { frequencies: frequencies(base, n_embd_head).collect(), long: None, magnitude: 1.0 }
    }

    /// Divides each frequency by its factor (Llama 3).
    pub(crate) fn divide(&mut self, factors: &[f32]) -> Result<(), HyperparamsError> {
        self.frequencies = divided(&self.frequencies, factors)?;
        Ok(())
    }

    /// Takes one list of factors up to a context of `n_ctx`, and another beyond it.
    pub(crate) fn lengthen(&mut self, n_ctx: usize, short: &[f32], long: &[f32]) -> Result<(), HyperparamsError> {
        self.long = Some((n_ctx, divided(&self.frequencies, long)?));
        self.divide(short)
    }

    /// The frequencies of a session with room for `n_ctx` tokens.
    pub fn frequencies(&self, n_ctx: usize) -> &[f32] {
        match &self.long {
            Some((beyond, long)) if n_ctx > *beyond => long,
            _ => &self.frequencies,
        }
    }
}

fn frequencies(base: f32, n_rot: usize) -> impl Iterator<Item = f32> {
    (0..n_rot / 2).map(move |i| base.powf(-2.0 * i as f32 / n_rot as f32))
}

fn divided(frequencies: &[f32], factors: &[f32]) -> Result<Vec<f32>, HyperparamsError> {
    let valid = |factor: f32| factor.is_finite() && factor > 0.0;
    if let Some(found) = factors.iter().find(|factor| !valid(**factor)) {
        let key = "a factor of rotary positions".to_owned();
        return Err(HyperparamsError::Value { key, found: found.to_string(), needed: "a finite number above 0".into() });
    }
    Ok(frequencies.iter().zip(factors).map(|(frequency, factor)| frequency / factor).collect())
}
