//! The large test data that is not part of the project.

use std::path::PathBuf;

/// The folder `LANTERN_TEST_DATA` names, else `../shared/data` beside the checkout. `None`, with a line on standard error,
/// when neither is there: the tests in the project itself still run.
pub fn test_data() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("LANTERN_TEST_DATA").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("test data not found: set LANTERN_TEST_DATA to a folder with vocab/ and templates/ to run the whole set");
    None
}
