//! What does not fit in memory is refused before it is read.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::time::Instant;

use engine::QuantType;
use scheduler::{Client, Event, FailureKind, Input, Limits, ModelFile, Options, Request, Scheduler};
use testkit::{Shape, tiny_model};

#[test]
fn a24_sparse_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&tiny_model(&Shape::tiny("llama"), QuantType::F32, 1).bytes()).unwrap();
    // One tebibyte by its length, a few kilobytes on disk.
    file.as_file().set_len(1 << 40).unwrap();
    let scheduler = Scheduler::start(Limits::default());
    let begun = Instant::now();
    let request = Request {
        model: ModelFile { name: "sparse".into(), digest: "1".into(), path: file.path().into() },
        client: Client { name: "test".into(), bounded: false },
        input: Input::Load,
        options: Options::default(),
        keep_alive: None,
        accepted: begun,
    };
    let Some(Event::Failed(failure)) = scheduler.submit(request).unwrap().blocking_recv() else { panic!("it was not refused") };
    assert_eq!(failure.kind, FailureKind::Memory);
    assert!(
        failure.message.starts_with("model requires more system memory (1024.1 GiB) than is available ("),
        "{}",
        failure.message
    );
    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    assert!(scheduler.residents().is_empty());
}
