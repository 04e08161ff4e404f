//! A session in a file: what it was computed with, its tokens, its keys and values, and a checksum of each piece.
//!
//! Everything is little-endian: the line [`FORMAT`], then `u32 length, model digest`, `u8 type of keys and values`, `u32 planes`,
//! `u32 bytes of a position`, `u32 room for tokens`, `u32 tokens`, the tokens and a CRC-32 of all that. Planes follow in the order of the cache, each with
//! its CRC-32.

use std::io::{self, Read, Write};

use kernels::KvType;

use crate::kv_cache::measures;
use crate::model::Model;
use crate::rope::Rope;
use crate::session::Session;

/// Names the layout and the arithmetic: keys of one version mean nothing to another.
const FORMAT: &[u8] = concat!("lantern session 2, engine ", env!("CARGO_PKG_VERSION"), "\n").as_bytes();
/// Longest digest that is believed.
const DIGEST_LEN_MAX: usize = 200;
/// Longest session that is believed.
const N_TOKENS_MAX: usize = 1 << 22;

/// Why a file gives no session.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is damaged")]
    Damaged,
    #[error("it was written by another version")]
    Version,
    #[error("it belongs to another model or another type of keys and values")]
    Model,
}

/// What a file says of itself, read without its keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Digest of the model it was computed with.
    pub digest: String,
    pub kv_type: KvType,
    pub tokens: Vec<u32>,
    n_planes: u32,
    row_bytes: u32,
    n_ctx: u32,
}

impl Saved {
    /// Reads and checks the beginning of a file; what is left to read are the planes.
    ///
    /// # Errors
    /// When it is not a session's file of this version, or damaged.
    pub fn read(from: &mut impl Read) -> Result<Saved, SavedError> {
        let mut format = vec![0; FORMAT.len()];
        from.read_exact(&mut format).map_err(cut_short)?;
        if format != FORMAT {
            return Err(SavedError::Version);
        }
        let mut from = Summed { inner: from, sum: crc32fast::Hasher::new() };
        let len = from.number()? as usize;
        if len > DIGEST_LEN_MAX {
            return Err(SavedError::Damaged);
        }
        let digest = String::from_utf8(from.bytes(len)?).map_err(|_| SavedError::Damaged)?;
        let kv_type = match from.bytes(1)?[0] {
            0 => KvType::F16,
            1 => KvType::Q8_0,
            _ => return Err(SavedError::Damaged),
        };
        let (n_planes, row_bytes, n_ctx, n_tokens) = (from.number()?, from.number()?, from.number()?, from.number()? as usize);
        if n_tokens > N_TOKENS_MAX {
            return Err(SavedError::Damaged);
        }
        let tokens = from.bytes(4 * n_tokens)?.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four)).collect();
        from.end()?;
        Ok(Saved { digest, kv_type, tokens, n_planes, row_bytes, n_ctx })
    }

    /// Whether its keys were turned as those of a session with room for `n_ctx` tokens are.
    pub fn is_turned_for(&self, model: &Model, n_ctx: usize) -> bool {
        let same = |rope: &Rope| rope.frequencies(n_ctx) == rope.frequencies(self.n_ctx as usize);
        model.hyperparams().ropes.iter().all(same)
    }

    /// The session, with room for `n_ctx` tokens.
    ///
    /// # Errors
    /// When the planes are damaged, or do not fit the model.
    ///
    /// # Panics
    /// When the session is longer than `n_ctx`.
    pub fn restore(self, model: &Model, n_ctx: usize, from: &mut impl Read) -> Result<Session, SavedError> {
        assert!(self.tokens.len() <= n_ctx, "{} tokens in a context of {n_ctx}", self.tokens.len());
        let h = model.hyperparams();
        let (n_planes, row_bytes) = measures(h, self.kv_type);
        let n_vocab = model.tokenizer().n_vocab();
        if !self.kv_type.fits(h.n_embd_head)
            || self.n_planes as usize != n_planes
            || self.row_bytes as usize != row_bytes
            || !self.is_turned_for(model, n_ctx)
            || self.tokens.iter().any(|token| *token as usize >= n_vocab)
        {
            return Err(SavedError::Model);
        }
        let mut session = Session::new(model, self.kv_type, n_ctx)?;
        for plane in session.kv.used_mut(self.tokens.len()) {
            let mut from = Summed { inner: &mut *from, sum: crc32fast::Hasher::new() };
            from.fill(plane)?;
            from.end()?;
        }
        session.tokens.extend_from_slice(&self.tokens);
        Ok(session)
    }
}

impl Session {
    /// Writes the session, computed with the model of digest `digest`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, digest: &str, to: &mut impl Write) -> io::Result<()> {
        let number = |n: usize| u32::try_from(n).map(u32::to_le_bytes).map_err(io::Error::other);
        let mut head = Vec::new();
        head.extend(number(digest.len())?);
        head.extend(digest.as_bytes());
        head.push(match self.kv.kv_type() {
            KvType::F16 => 0,
            KvType::Q8_0 => 1,
        });
        let (n_planes, row_bytes) = self.kv.measures();
        head.extend(number(n_planes)?);
        head.extend(number(row_bytes)?);
        head.extend(number(self.n_ctx())?);
        head.extend(number(self.tokens.len())?);
        head.extend(self.tokens.iter().flat_map(|token| token.to_le_bytes()));
        to.write_all(FORMAT)?;
        for piece in std::iter::once(&head[..]).chain(self.kv.used(self.tokens.len())) {
            to.write_all(piece)?;
            to.write_all(&crc32fast::hash(piece).to_le_bytes())?;
        }
        to.flush()
    }
}

/// A reader that sums what it reads.
struct Summed<'a, R> {
    inner: &'a mut R,
    sum: crc32fast::Hasher,
}

impl<R: Read> Summed<'_, R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SavedError> {
        self.inner.read_exact(bytes).map_err(cut_short)?;
        self.sum.update(bytes);
        Ok(())
    }

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, SavedError> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, SavedError> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Compares the sum with the one that follows.
    fn end(self) -> Result<(), SavedError> {
        let mut expected = [0; 4];
        self.inner.read_exact(&mut expected).map_err(cut_short)?;
        if self.sum.finalize().to_le_bytes() == expected { Ok(()) } else { Err(SavedError::Damaged) }
    }
}

/// A file that ends too early is damaged; anything else is the system's.
fn cut_short(error: io::Error) -> SavedError {
    if error.kind() == io::ErrorKind::UnexpectedEof { SavedError::Damaged } else { SavedError::Io(error) }
}
