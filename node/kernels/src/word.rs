//! Words of four bytes, of one row or of several rows side by side: what the layouts of quantized blocks are read with. One
//! description of a layout then serves the definition, where a word is a `u32`, and panels, where it is a vector.

/// The same word of one or several rows.
///
/// # Safety
/// Functions of a vector ask for the instructions it stands for, which the caller has made sure of.
pub trait Word: Copy {
    /// Where a block of each row lies.
    type Rows: Copy;

    /// The 16 bytes from `at` on, as four words, the first byte low.
    ///
    /// # Safety
    /// They lie inside the blocks.
    unsafe fn piece(rows: Self::Rows, at: usize) -> [Self; 4];
    /// The word at byte `at`.
    ///
    /// # Safety
    /// It lies inside the blocks.
    unsafe fn word(rows: Self::Rows, at: usize) -> Self;
    unsafe fn and(self, mask: u32) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn add(self, value: u32) -> Self;
    unsafe fn xor(self, mask: u32) -> Self;
    /// Subtracts `value` from each byte, which may wrap.
    unsafe fn sub_bytes(self, value: u8) -> Self;
    unsafe fn mul(self, factor: u32) -> Self;
    unsafe fn shl(self, n: u32) -> Self;
    unsafe fn shr(self, n: u32) -> Self;
    /// As `shr`, filling with the top bit.
    unsafe fn sar(self, n: u32) -> Self;
}

/// A word of each of `R` rows side by side.
///
/// # Safety
/// As [`Word`].
pub(crate) trait Side<const R: usize>: Word<Rows = [*const u8; R]> {
    unsafe fn store(self, to: &mut [u32; R]);
    /// Signed integers as floats.
    unsafe fn store_float(self, to: &mut [f32; R]);
    /// f16 numbers, by their bits, as floats.
    unsafe fn widen(halves: &[u16; R], to: &mut [f32; R]);
}

impl Word for u32 {
    type Rows = *const u8;

    #[inline(always)]
    unsafe fn piece(rows: *const u8, at: usize) -> [u32; 4] {
        // SAFETY: the caller's promise; bytes need no alignment.
        let bytes = unsafe { rows.add(at).cast::<[[u8; 4]; 4]>().read() };
        bytes.map(u32::from_le_bytes)
    }

    #[inline(always)]
    unsafe fn word(rows: *const u8, at: usize) -> u32 {
        // SAFETY: the caller's promise; bytes need no alignment.
        u32::from_le_bytes(unsafe { rows.add(at).cast::<[u8; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn and(self, mask: u32) -> u32 {
        self & mask
    }

    #[inline(always)]
    unsafe fn or(self, other: u32) -> u32 {
        self | other
    }

    #[inline(always)]
    unsafe fn add(self, value: u32) -> u32 {
        self.wrapping_add(value)
    }

    #[inline(always)]
    unsafe fn xor(self, mask: u32) -> u32 {
        self ^ mask
    }

    #[inline(always)]
    unsafe fn sub_bytes(self, value: u8) -> u32 {
        u32::from_le_bytes(self.to_le_bytes().map(|byte| byte.wrapping_sub(value)))
    }

    #[inline(always)]
    unsafe fn mul(self, factor: u32) -> u32 {
        self.wrapping_mul(factor)
    }

    #[inline(always)]
    unsafe fn shl(self, n: u32) -> u32 {
        self << n
    }

    #[inline(always)]
    unsafe fn shr(self, n: u32) -> u32 {
        self >> n
    }

    #[inline(always)]
    unsafe fn sar(self, n: u32) -> u32 {
        (self as i32 >> n) as u32
    }
}
