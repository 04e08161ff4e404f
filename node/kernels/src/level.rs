//! Which set of kernels this processor runs.

use std::fmt;

/// A set of kernels. All levels give the same bytes; a faster one is only faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Plain loops: the definition.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The same with 256-bit dot products of bytes (AVX-VNNI).
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// The same with 512-bit vectors and dot products of bytes (AVX-512 VNNI).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Arm v8.2 with the dot-product instructions (Cortex-A76 and later).
    #[cfg(target_arch = "aarch64")]
    Dotprod,
    /// The same with matrix products of bytes (i8mm, Arm v8.6 and later).
    #[cfg(target_arch = "aarch64")]
    I8mm,
}

impl Level {
    /// The fastest level this processor has.
    pub fn detect() -> Level {
        Level::available()[0]
    }

    /// Every level this processor has, fastest first.
    pub fn available() -> Vec<Level> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            // All processors with AVX-512 VNNI have the other four.
            if is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
            {
                levels.push(Level::Avx512);
            }
            if is_x86_feature_detected!("avxvnni") {
                levels.push(Level::AvxVnni);
            }
            levels.push(Level::Avx2);
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                levels.push(Level::I8mm);
            }
            levels.push(Level::Dotprod);
        }
        levels.push(Level::Scalar);
        levels
    }

    /// How many of `n_rows` inputs a panel of weights meets at a time; the definition meets each alone.
    pub(crate) fn tile_rows(self, n_rows: usize) -> usize {
        match self {
            Level::Scalar => 1,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::AvxVnni => {
                if n_rows == 1 {
                    1
                } else {
                    4
                }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => match n_rows {
                1 => 1,
                5..=8 => 8,
                _ => 4,
            },
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod | Level::I8mm => {
                if n_rows == 1 {
                    1
                } else {
                    4
                }
            }
        }
    }

    /// Whether tiles of `n` inputs hold eights of each input, as matrix products want, instead of fours.
    pub(crate) fn takes_eights(self, n: usize) -> bool {
        n > 1
            && match self {
                #[cfg(target_arch = "aarch64")]
                Level::I8mm => true,
                _ => false,
            }
    }
}

/// Compiles a function in plain loops once for each set of instructions, to which the compiler vectorizes it, and calls
/// the one of `level`. No reordering of sums is allowed to a compiler, so all give the same bytes.
macro_rules! compiled_for {
    ($(#[$doc:meta])* $seen:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        $seen fn $name(level: crate::Level, $($argument: $kind),*) {
            #[inline(always)]
            fn body($($argument: $kind),*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($argument: $kind),*) {
                body($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512vl,avx512bw,avx512dq")]
            fn avx512($($argument: $kind),*) {
                body($($argument),*)
            }
            match level {
                // SAFETY: a level other than Scalar is only made by `Level::available`, after asking the processor.
                #[cfg(target_arch = "x86_64")]
                crate::Level::Avx2 | crate::Level::AvxVnni => unsafe { avx2($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                crate::Level::Avx512 => unsafe { avx512($($argument),*) },
                // NEON is part of every 64-bit Arm.
                _ => body($($argument),*),
            }
        }
    };
}
pub(crate) use compiled_for;

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => "AVX-VNNI",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512 VNNI",
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod => "NEON dot product",
            #[cfg(target_arch = "aarch64")]
            Level::I8mm => "NEON i8mm",
        })
    }
}
