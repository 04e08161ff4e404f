//! A blob on its way into the store: written beside the others, hashed as it comes, renamed when it is whole.

use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::store::{Staging, Store, blob_file, digest_of, hex};

/// Bytes that arrive for a blob. Dropped before its end, it leaves nothing.
pub struct Upload {
    store: Store,
    staging: Staging,
    file: std::fs::File,
    hasher: Sha256,
}

/// Why bytes did not become the blob they were said to be.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("invalid digest format")]
    NotADigest,
    #[error("digest mismatch, expected {want:?}, got {got:?}")]
    Digest { want: String, got: String },
    #[error("cannot write the model store: {0}")]
    Io(#[from] io::Error),
}

impl Store {
    /// Whether a blob is here; `None` when the digest is none.
    pub fn has_blob(&self, digest: &str) -> Option<bool> {
        self.blob_path(digest).map(|path| path.is_file())
    }

    /// A place for the bytes of a blob.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn upload(&self) -> io::Result<Upload> {
        let (staging, file) = Staging::new(&self.create_blobs()?)?;
        Ok(Upload { store: self.clone(), staging, file, hasher: Sha256::new() })
    }
}

/// A file being written that may become a blob. Dropped before that, it is removed.
pub struct Draft {
    store: Store,
    staging: Staging,
}

impl Store {
    /// A file for work whose result is to be a blob.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn draft(&self) -> io::Result<Draft> {
        Ok(Draft { store: self.clone(), staging: Staging::new(&self.create_blobs()?)?.0 })
    }
}

impl Draft {
    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.staging.0
    }

    /// Makes the file a blob and tells its digest.
    ///
    /// # Errors
    /// When it cannot be read or renamed.
    pub fn finish(self) -> io::Result<String> {
        let digest = digest_of(&self.staging.0)?;
        let path = self.store.blob_path(&digest).expect("our own digest is well formed");
        std::fs::rename(&self.staging.0, path)?;
        Ok(digest)
    }
}

impl Upload {
    /// Takes more bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    /// Makes the bytes a blob under their true digest, and compares that with the one they were to have.
    ///
    /// # Errors
    /// When the digests differ, or the store cannot be written.
    pub fn finish(self, digest: &str) -> Result<(), UploadError> {
        let want = blob_file(digest).ok_or(UploadError::NotADigest)?.replace('-', ":");
        self.file.sync_all()?;
        let got = format!("sha256:{}", hex(&self.hasher.finalize()));
        let path = self.store.blob_path(&got).expect("our own digest is well formed");
        std::fs::rename(&self.staging.0, path)?;
        if got == want { Ok(()) } else { Err(UploadError::Digest { want, got }) }
    }
}
