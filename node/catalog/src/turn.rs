//! Turns among those who change a store: threads of this process, and other processes.

use std::fs::File;
use std::sync::{MutexGuard, PoisonError};

use crate::store::Store;

/// Held while names change their meaning: a blob that one manifest lets go of may be one that another is about to need.
pub(crate) struct Turn<'a> {
    _among_threads: MutexGuard<'a, ()>,
    /// A lock of the folder, which ends with the process that has it.
    _among_processes: Option<File>,
}

impl Store {
    /// Waits for its turn.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let among_threads = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // A folder that does not exist yet has nothing to lose; some file systems know no locks.
        let among_processes = File::open(self.folder()).ok().filter(|folder| folder.lock().is_ok());
        Turn { _among_threads: among_threads, _among_processes: among_processes }
    }
}
