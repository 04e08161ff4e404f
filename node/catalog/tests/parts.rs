//! Layers in parts that several connections bring at once, sign-ins, and what a pull is refused for.

#![allow(clippy::unwrap_used, reason = "tests")]

mod server;

use std::collections::HashMap;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use catalog::{ModelName, Progress, Registry, Store};
use server::{CONFIG, Reply, Server, pull, registry, serve, weights};
use testkit::{digest, manifest};

/// What a part of a layer below 64 MiB is.
const PART: usize = 4 << 20;

/// Bytes of two and a half parts.
fn large() -> Vec<u8> {
    (0..(5 * PART / 8) as u32).flat_map(u32::to_le_bytes).collect()
}

/// A registry with one large model.
fn large_registry(reply: impl Fn(Vec<u8>) -> Reply) -> (Server, String) {
    let blob = format!("/v2/library/large/blobs/{}", digest(&large()));
    let server = serve(HashMap::from([
        ("/v2/library/large/manifests/latest".to_owned(), Reply::Bytes(manifest(CONFIG, &large(), large().len()))),
        (blob.clone(), reply(large())),
        (format!("/v2/library/large/blobs/{}", digest(CONFIG)), Reply::Bytes(CONFIG.to_vec())),
    ]));
    (server, blob)
}

fn ranges(server: &Server, blob: &str) -> Vec<Option<usize>> {
    let mut ranges: Vec<_> = server.seen.lock().unwrap().iter().filter(|(path, _)| path == blob).map(|(_, from)| *from).collect();
    ranges.sort_unstable();
    ranges
}

#[tokio::test]
async fn parts_come_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    // Nobody gets a byte before three have asked.
    let meeting = Arc::new(Barrier::new(3));
    let (server, blob) = large_registry(|bytes| Reply::Together(bytes, meeting.clone()));
    let (result, steps) = pull(&server, &store, "large").await;
    result.unwrap();
    assert_eq!(ranges(&server, &blob), [Some(0), Some(PART), Some(2 * PART)]);
    let found = store.find(&ModelName::parse("large").unwrap()).unwrap();
    assert_eq!(std::fs::read(found.model_path().unwrap()).unwrap(), large());
    let told: Vec<u64> = steps
        .iter()
        .filter_map(|step| match step {
            Progress::Layer { digest: of, completed, .. } if *of == digest(&large()) => Some(*completed),
            _ => None,
        })
        .collect();
    assert!(told.is_sorted() && told.first() == Some(&0) && told.last() == Some(&(large().len() as u64)), "{told:?}");
}

#[tokio::test]
async fn a_part_that_breaks_off_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    // The connection that is served first is cut, whichever part it asks for.
    let (server, blob) = large_registry(|bytes| Reply::CutOnce(bytes, 1_000_000));
    pull(&server, &store, "large").await.0.unwrap();
    let ranges = ranges(&server, &blob);
    assert_eq!(ranges.len(), 4, "{ranges:?}");
    assert!([Some(0), Some(PART), Some(2 * PART)].iter().all(|from| ranges.contains(from)), "{ranges:?}");
}

#[tokio::test]
async fn a_server_without_ranges_sends_everything() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, blob) = large_registry(Reply::NoRanges);
    pull(&server, &store, "large").await.0.unwrap();
    assert_eq!(ranges(&server, &blob)[0], None, "asked for without a range");
    let found = store.find(&ModelName::parse("large").unwrap()).unwrap();
    assert_eq!(std::fs::read(found.model_path().unwrap()).unwrap(), large());
    assert_eq!(std::fs::read_dir(folder.path().join("blobs")).unwrap().count(), 2, "nothing unfinished is left");
}

/// 10.5 MB at 20 MB/s take half a second, whatever the number of connections.
#[tokio::test]
async fn a_rate_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = large_registry(Reply::Bytes);
    let registry = Registry::new(&server.address, &server.address).unwrap().at_rate(Some(20_000_000));
    let begun = Instant::now();
    registry.pull(&store, &ModelName::parse("large").unwrap(), |_| {}).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn c09_further_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = registry(Reply::Bytes);
    let host = server.address.trim_start_matches("http://");
    let name = ModelName::parse(&format!("{host}/library/tiny")).unwrap();
    let closed = Registry::new("http://127.0.0.1:1", "http://127.0.0.1:1").unwrap();
    let error = closed.pull(&store, &name, |_| {}).await.unwrap_err().to_string();
    assert!(error.starts_with("models are pulled from registry.ollama.ai and hf.co only, not from 127.0.0.1:"), "{error}");
    let open = closed.and_from(&server.address).unwrap();
    open.pull(&store, &name, |_| {}).await.unwrap();
    assert!(store.find(&name).is_ok());
}

/// A registry that wants a sign-in for everything: `realm` is where it says that is.
fn guarded(realm: impl Fn(&str) -> String) -> Server {
    let (open, blob) = registry(Reply::Bytes);
    let paths =
        ["/v2/library/tiny/manifests/latest".to_owned(), blob.clone(), format!("/v2/library/tiny/blobs/{}", digest(CONFIG))];
    let inner = open.address.clone();
    server::guard(move |address| (realm(address), paths.iter().map(|path| (path.clone(), format!("{inner}{path}"))).collect()))
}

#[tokio::test]
async fn a_sign_in_at_the_same_place_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let server = guarded(|address| format!("{address}/token"));
    pull(&server, &store, "tiny").await.0.unwrap();
    assert_eq!(store.list().len(), 1);
    let n_sign_ins = server.seen.lock().unwrap().iter().filter(|(path, _)| path == "/token").count();
    assert_eq!(n_sign_ins, 1, "one is enough for all layers");
}

#[tokio::test]
async fn c08_a_sign_in_elsewhere_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let elsewhere = serve(HashMap::new());
    let address = elsewhere.address.clone();
    let server = guarded(move |_| format!("{address}/token"));
    let registry = Registry::new(&server.address, &server.address).unwrap().with_hub_token("hf_secret".into()).unwrap();
    for name in ["tiny", "hf.co/library/tiny"] {
        let error = registry.pull(&store, &ModelName::parse(name).unwrap(), |_| {}).await.unwrap_err().to_string();
        assert_eq!(error, "pull model manifest: 401: it wants a sign-in at 127.0.0.1, which is another place");
    }
    assert_eq!(elsewhere.seen.lock().unwrap().len(), 0, "nothing was sent there");
}

/// The owner's token is shown to the hub, where it is needed, and to nobody else.
#[tokio::test]
async fn tokens_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let server = guarded(|_| "none".into());
    let registry = Registry::new(&server.address, &server.address).unwrap();
    let name = ModelName::parse("hf.co/library/tiny").unwrap();
    let refused = registry.pull(&store, &name, |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("401"), "{refused}");
    let registry = registry.with_hub_token("let me in".into()).unwrap();
    registry.pull(&store, &name, |_| {}).await.unwrap();
    let refused = registry.pull(&store, &ModelName::parse("tiny").unwrap(), |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("401"), "{refused}");
}

/// More than any disk of these machines holds is refused before a byte of it is fetched.
#[tokio::test]
async fn c20_what_the_disk_cannot_hold_is_not_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let manifest = manifest(CONFIG, &weights(), 1 << 43);
    let server = serve(HashMap::from([("/v2/library/vast/manifests/latest".to_owned(), Reply::Bytes(manifest))]));
    let error = pull(&server, &store, "vast").await.0.unwrap_err().to_string();
    assert!(error.starts_with("the model needs 8192.0 GiB of disk, ") && error.contains(" of them are kept so"), "{error}");
    assert_eq!(server.seen.lock().unwrap().len(), 1);
}

/// A short name of the list means its file on the hub, and no other file.
#[tokio::test]
async fn names_of_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let path = "/v2/Qwen/Qwen3-0.6B-GGUF/manifests/Q8_0".to_owned();
    let server = serve(HashMap::from([(path.clone(), Reply::Bytes(manifest(CONFIG, &weights(), weights().len())))]));
    let registry = Registry::new(catalog::REGISTRY, &server.address).unwrap();
    let error = registry.pull(&store, &ModelName::parse("qwen3:0.6b").unwrap(), |_| {}).await.unwrap_err().to_string();
    assert!(error.starts_with("the file is not the one that is listed: want sha256:9465e63a22add535"), "{error}");
    assert!(error.ends_with("pull hf.co/Qwen/Qwen3-0.6B-GGUF:Q8_0 to have it all the same"), "{error}");
    assert_eq!(*server.seen.lock().unwrap(), [(path, None)], "its manifest was asked for, nothing more");
    // Who has a registry of their own means its models.
    pull(&registry_with_qwen(), &store, "qwen3:0.6b").await.0.unwrap();
}

fn registry_with_qwen() -> Server {
    let blob = |bytes: &[u8]| (format!("/v2/library/qwen3/blobs/{}", digest(bytes)), Reply::Bytes(bytes.to_vec()));
    let manifest = manifest(CONFIG, &weights(), weights().len());
    let replies = [("/v2/library/qwen3/manifests/0.6b".to_owned(), Reply::Bytes(manifest)), blob(&weights()), blob(CONFIG)];
    serve(HashMap::from(replies))
}

/// A model that goes takes no layer of one that is just arriving, nor of one that is here.
#[tokio::test]
async fn c17_layers_that_models_share() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = registry(Reply::Bytes);
    pull(&server, &store, "tiny").await.0.unwrap();
    let names = ["tiny", "tiny:again"].map(|name| ModelName::parse(name).unwrap());
    let registry = Registry::new(&server.address, &server.address).unwrap();
    // The first goes when the second has found its layers here.
    let removed = std::sync::atomic::AtomicBool::new(false);
    let result = registry
        .pull(&store, &names[1], |step| {
            if step == Progress::Verifying {
                store.remove(&names[0]).unwrap();
                removed.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        })
        .await;
    assert!(removed.into_inner());
    // Either it is whole, or it says that it is not and is nowhere to be seen.
    match result {
        Ok(()) => assert_eq!(std::fs::read(store.find(&names[1]).unwrap().model_path().unwrap()).unwrap(), weights()),
        Err(error) => {
            assert!(error.to_string().contains("was removed meanwhile; try again"), "{error}");
            assert!(store.find(&names[1]).is_err());
        }
    }
    pull(&server, &store, "tiny:again").await.0.unwrap();
    assert_eq!(std::fs::read(store.find(&names[1]).unwrap().model_path().unwrap()).unwrap(), weights());
}

/// A connection that brings nothing for half a minute is given up, and its part goes on where it ended.
#[tokio::test]
async fn c19_a_registry_that_falls_silent() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, blob) = large_registry(|bytes| Reply::StallOnce(bytes, PART / 2));
    let begun = Instant::now();
    pull(&server, &store, "large").await.0.unwrap();
    assert!((25..60).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(ranges(&server, &blob).len(), 4, "three parts, and the rest of one");
    let found = store.find(&ModelName::parse("large").unwrap()).unwrap();
    assert_eq!(std::fs::read(found.model_path().unwrap()).unwrap(), large());
}

/// What has arrived whole is kept when another layer does not come, and is not asked for again.
#[tokio::test]
async fn a_whole_layer_waits_for_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let blob = format!("/v2/library/large/blobs/{}", digest(&large()));
    let replies = |weights: Reply, config: Reply| {
        HashMap::from([
            ("/v2/library/large/manifests/latest".to_owned(), Reply::Bytes(manifest(CONFIG, &large(), large().len()))),
            (blob.clone(), weights),
            (format!("/v2/library/large/blobs/{}", digest(CONFIG)), config),
        ])
    };
    for with_ranges in [true, false] {
        let weights = if with_ranges { Reply::Bytes(large()) } else { Reply::NoRanges(large()) };
        let first = serve(replies(weights, Reply::Status(404, "gone")));
        assert!(pull(&first, &store, "large").await.0.unwrap_err().to_string().contains("404"));
        let second = serve(replies(Reply::Status(404, "asked again"), Reply::Bytes(CONFIG.to_vec())));
        pull(&second, &store, "large").await.0.unwrap();
        assert_eq!(ranges(&second, &blob), []);
        assert_eq!(std::fs::read_dir(folder.path().join("blobs")).unwrap().count(), 2, "no notes are left");
        store.remove(&ModelName::parse("large").unwrap()).unwrap();
    }
}

#[tokio::test]
async fn two_processes_do_not_write_one_layer() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = large_registry(Reply::Bytes);
    std::fs::create_dir_all(folder.path().join("blobs")).unwrap();
    let partial = folder.path().join("blobs").join(digest(&large()).replace(':', "-")).with_extension("part");
    let other = std::fs::File::create(&partial).unwrap();
    other.lock().unwrap();
    let refused = pull(&server, &store, "large").await.0.unwrap_err().to_string();
    assert!(refused.contains("is being fetched by another process"), "{refused}");
    drop(other);
    pull(&server, &store, "large").await.0.unwrap();
}

/// What a place was shown stays there: a redirect to another one comes without it.
#[tokio::test]
async fn c08_tokens_do_not_follow_redirects() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let shown = Arc::new(Mutex::new(Vec::new()));
    let log = shown.clone();
    let elsewhere = testkit::serve(move |mut asked| {
        log.lock().unwrap().push(asked.bearer.clone());
        let body = if asked.path.ends_with(&digest(CONFIG)) { CONFIG.to_vec() } else { weights() };
        asked.answer("200 X", &body);
    });
    let blob = |bytes: &[u8]| format!("/v2/library/tiny/blobs/{}", digest(bytes));
    let home = testkit::serve(move |mut asked| match asked.path.as_str() {
        "/token" => asked.answer("200 X", br#"{"token": "secret"}"#),
        path if asked.bearer.is_none() => {
            let realm = format!("{}/token", asked.host());
            let head = format!("401 X\r\nWWW-Authenticate: Bearer realm=\"{realm}\",service=\"here\",scope=\"{path}\"");
            asked.answer(&head, b"");
        }
        "/v2/library/tiny/manifests/latest" => asked.answer("200 X", &manifest(CONFIG, &weights(), weights().len())),
        path => {
            assert!([blob(CONFIG), blob(&weights())].contains(&path.to_owned()), "{path}");
            let to = format!("307 X\r\nLocation: {elsewhere}{path}");
            asked.answer(&to, b"");
        }
    });
    let registry = Registry::new(&home, &home).unwrap();
    registry.pull(&store, &ModelName::parse("tiny").unwrap(), |_| {}).await.unwrap();
    let shown = shown.lock().unwrap();
    assert!(shown.len() >= 2 && shown.iter().all(Option::is_none), "{shown:?}");
}
