//! Long chats that leave memory come back from disk, and only what is whole and meant for the model does.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::QuantType;
use scheduler::{
    Client, Done, Event, Input, KeepAlive, KvType, Limits, ModelFile, Options, Request, SamplerOptions, Scheduler, Threads,
};
use testkit::{Shape, tiny_model};

struct Chats {
    model: tempfile::NamedTempFile,
    folder: tempfile::TempDir,
}

/// Some 700 tokens: the tiny models have one a byte.
fn long_text(topic: &str) -> String {
    format!("{topic}: {}", "one two three four five six seven ".repeat(20))
}

impl Chats {
    fn new() -> Chats {
        let mut model = tempfile::NamedTempFile::new().unwrap();
        model.write_all(&tiny_model(&Shape::tiny("llama"), QuantType::Q8_0, 4).bytes()).unwrap();
        Chats { model, folder: tempfile::tempdir().unwrap() }
    }

    fn sessions(&self) -> PathBuf {
        self.folder.path().join("sessions")
    }

    fn start(&self) -> Scheduler {
        self.start_with(|_| ())
    }

    fn start_with(&self, change: impl FnOnce(&mut Limits)) -> Scheduler {
        let mut limits = Limits { threads: Threads::same(1), sessions: Some(self.sessions()), ..Limits::default() };
        change(&mut limits);
        Scheduler::start(limits)
    }

    fn ask(&self, scheduler: &Scheduler, prompt: &str) -> Done {
        self.ask_as(scheduler, "1", Vec::new(), prompt)
    }

    fn ask_as(&self, scheduler: &Scheduler, digest: &str, context: Vec<u32>, prompt: &str) -> Done {
        let sampler = SamplerOptions { temperature: 0.0, ..SamplerOptions::default() };
        let request = Request {
            model: ModelFile { name: "tiny".into(), digest: digest.into(), path: self.model.path().into() },
            client: Client { name: "test".into(), bounded: false },
            input: Input::Text { prompt: prompt.into(), context, truncate: true },
            options: Options { sampler, n_predict: Some(8), ..Options::default() },
            keep_alive: None,
            accepted: Instant::now(),
        };
        let mut events = scheduler.submit(request).unwrap();
        loop {
            match events.blocking_recv().unwrap() {
                Event::Done(done) => return *done,
                Event::Failed(failure) => panic!("{failure:?}"),
                Event::Began(_) | Event::Piece(_) | Event::Rendered(_) | Event::Embedded(_) => {}
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        files(&self.sessions())
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn a_chat_goes_on_after_a_restart() {
    let chats = Chats::new();
    let first = chats.ask(&chats.start(), &long_text("a"));
    assert_eq!(first.n_reused, 0);
    let [file] = &chats.files()[..] else { panic!("one file: {:?}", chats.files()) };
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "others could read it");
    assert_eq!(std::fs::metadata(chats.sessions()).unwrap().permissions().mode() & 0o777, 0o700);

    let go_on = |chats: &Chats| chats.ask_as(&chats.start(), "1", first.context.clone(), "and more");
    let (expected, second) = (go_on(&Chats::new()), go_on(&chats));
    // All but the last token of an answer is computed.
    assert_eq!((expected.n_reused, second.n_reused), (0, first.context.len() - 1));
    assert_eq!(second.context, expected.context);
    // The longer chat replaces the one it continues.
    assert_eq!(chats.files().len(), 1);
    assert_ne!(&chats.files()[0], file);
    // What is on disk already is not written again.
    let before = chats.files();
    let third = go_on(&chats);
    assert_eq!((third.context, chats.files()), (expected.context, before));
}

#[test]
fn short_chats_and_other_models_are_left_alone() {
    let chats = Chats::new();
    chats.ask(&chats.start(), "short");
    assert_eq!(chats.files(), Vec::<PathBuf>::new());
    chats.ask(&chats.start(), &long_text("a"));
    assert_eq!(chats.ask_as(&chats.start(), "2", Vec::new(), &long_text("a")).n_reused, 0, "keys of another model were used");
    assert_eq!(chats.files().len(), 2);
    let as_q8_0 = chats.start_with(|limits| limits.kv_type = KvType::Q8_0);
    assert_eq!(chats.ask(&as_q8_0, &long_text("a")).n_reused, 0, "keys of another type were used");
    assert_eq!(chats.ask(&chats.start(), &long_text("b")).n_reused, 0, "a chat that begins otherwise was used");
}

#[test]
fn damaged_and_foreign_files_are_removed() {
    let chats = Chats::new();
    chats.ask(&chats.start(), &long_text("a"));
    let file = chats.files().remove(0);
    let whole = std::fs::read(&file).unwrap();
    let expected = {
        let fresh = Chats::new();
        fresh.ask(&fresh.start(), &long_text("a")).context
    };
    let check = |what: &str, bytes: &[u8]| {
        files(&chats.sessions()).iter().for_each(|file| std::fs::remove_file(file).unwrap());
        std::fs::write(&file, bytes).unwrap();
        let scheduler = chats.start();
        let done = chats.ask(&scheduler, &long_text("a"));
        assert!(!file.exists(), "{what}: the file is still there");
        assert_eq!((done.n_reused, done.context), (0, expected.clone()), "{what}");
    };
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    check("empty", &[]);
    check("not a session", b"something else entirely");
    check("another version", &[b"lantern session 1, engine 0.0.0-other\n", &whole[30..]].concat());
    for at in [40, 60, 100, 2000, whole.len() / 2, whole.len() - 3] {
        check(&format!("byte {at} is wrong"), &flipped(at));
    }
    for len in [10, 50, 1000, whole.len() / 2, whole.len() - 1] {
        check(&format!("cut to {len} bytes"), &whole[..len]);
    }
    // A length that is not to be believed must not be reserved.
    let mut endless = whole.clone();
    let at = whole.iter().position(|b| *b == b'\n').unwrap() + 1 + 4 + 1 + 1 + 4 + 4;
    endless[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    check("endless", &endless);
}

#[test]
fn without_a_folder_answers_go_on() {
    let chats = Chats::new();
    std::fs::write(chats.sessions(), "a file in the folder's place").unwrap();
    let scheduler = chats.start();
    assert_eq!(chats.ask(&scheduler, &long_text("a")).n_decoded, 8);
    drop(scheduler);
    assert_eq!(std::fs::read_to_string(chats.sessions()).unwrap(), "a file in the folder's place");
}

/// A folder that cannot be written to, as on a full disk: the chat is lost, the daemon is not.
#[test]
fn a_disk_that_takes_nothing_ends_it() {
    let chats = Chats::new();
    let scheduler = chats.start_with(|limits| limits.keep_alive = KeepAlive::For(std::time::Duration::ZERO));
    chats.ask(&scheduler, "make the folder");
    std::fs::create_dir(chats.sessions().join("unfinished")).unwrap();
    for _ in 0..2 {
        assert_eq!(chats.ask(&scheduler, &long_text("a")).n_decoded, 8);
    }
    drop(scheduler);
    assert_eq!(chats.files(), [chats.sessions().join("unfinished")]);
}

/// With room for one session, a second chat sends the first to disk, from where it comes back.
#[test]
fn chats_take_turns_in_memory() {
    let chats = Chats::new();
    let scheduler = chats.start_with(|limits| limits.n_parallel = 1);
    let (a, b) = (long_text("a"), long_text("b"));
    let (first_a, first_b) = (chats.ask(&scheduler, &a), chats.ask(&scheduler, &b));
    assert_eq!((first_a.n_reused, first_b.n_reused), (0, 0));
    let begun = Instant::now();
    while chats.files().iter().all(|file| file.extension().is_none_or(|e| e != "session")) {
        assert!(begun.elapsed().as_secs() < 30, "the first chat was not written");
        std::thread::yield_now();
    }
    let again = chats.ask(&scheduler, &a);
    assert_eq!((again.n_reused, again.context), (a.len() - 1, first_a.context));
}

/// What two chats share is copied, also from one that is still being answered, and neither disturbs the other.
#[test]
fn a_shared_beginning_is_copied() {
    let chats = Chats::new();
    let scheduler = chats.start();
    let (a, b) = (long_text("same") + "first", long_text("same") + "second");
    let alone = {
        let fresh = Chats::new();
        [fresh.ask(&fresh.start(), &a), fresh.ask(&fresh.start(), &b)].map(|done| done.context)
    };
    let (first_a, first_b) = (chats.ask(&scheduler, &a), chats.ask(&scheduler, &b));
    assert_eq!(first_b.n_reused, long_text("same").len());
    assert_eq!([first_a.context, first_b.context], alone);
    let again = chats.ask(&scheduler, &(a.clone() + "!"));
    assert_eq!(again.n_reused, a.len(), "the first chat lost its keys to the second");
}
