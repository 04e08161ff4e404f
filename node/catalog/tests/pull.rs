//! Pulls from a server on loopback that answers as a registry does, and as a broken one does.

#![allow(clippy::unwrap_used, reason = "tests")]

mod server;

use std::collections::HashMap;

use catalog::{ModelName, Progress, Registry, Store};
use server::{CONFIG, Reply, pull, registry, serve, weights};
use testkit::digest;

fn files(store: &Store) -> usize {
    std::fs::read_dir(store.folder().join("blobs")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_model_arrives_whole_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = registry(Reply::Bytes);
    let (result, steps) = pull(&server, &store, "tiny").await;
    result.unwrap();
    assert_eq!(steps[0], Progress::Manifest);
    assert_eq!(steps[steps.len() - 2..], [Progress::Verifying, Progress::WritingManifest]);
    let found = store.find(&ModelName::parse("tiny").unwrap()).unwrap();
    assert_eq!(std::fs::read(found.model_path().unwrap()).unwrap(), weights());
    assert_eq!(found.config.model_family, "qwen3");
    let (result, steps) = pull(&server, &store, "tiny").await;
    result.unwrap();
    let whole =
        |bytes: &[u8]| Progress::Layer { digest: digest(bytes), total: bytes.len() as u64, completed: bytes.len() as u64 };
    let expected = [Progress::Manifest, whole(&weights()), whole(CONFIG), Progress::Verifying, Progress::WritingManifest];
    assert_eq!(steps, expected);
    assert_eq!(server.seen.lock().unwrap().iter().filter(|(path, _)| path.contains("/blobs/")).count(), 2, "each blob once");
}

#[tokio::test]
async fn two_models_with_the_same_layers_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = registry(Reply::Bytes);
    let registry = Registry::new(&server.address, &server.address).unwrap();
    let [first, second] = ["tiny", "tiny:again"].map(|name| ModelName::parse(name).unwrap());
    let (a, b) = tokio::join!(registry.pull(&store, &first, |_| {}), registry.pull(&store, &second, |_| {}));
    a.unwrap();
    b.unwrap();
    assert_eq!(store.list().len(), 2);
    assert_eq!(server.seen.lock().unwrap().iter().filter(|(path, _)| path.contains("/blobs/")).count(), 2, "each blob once");
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, blob) = registry(|bytes| Reply::CutOnce(bytes, 500_000));
    pull(&server, &store, "tiny").await.0.unwrap();
    let ranges: Vec<_> = server.seen.lock().unwrap().iter().filter(|(path, _)| *path == blob).map(|(_, r)| *r).collect();
    assert_eq!(ranges, [Some(0), Some(500_000)], "no byte is fetched twice");
    assert_eq!(files(&store), 2, "nothing unfinished is left");
}

#[tokio::test]
async fn what_an_earlier_process_fetched_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, blob) = registry(Reply::Bytes);
    let part = folder.path().join("blobs").join(digest(&weights()).replace(':', "-")).with_extension("part");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, &weights()[..123_456]).unwrap();
    std::fs::write(part.with_extension("parts"), "123456").unwrap();
    pull(&server, &store, "tiny").await.0.unwrap();
    assert!(server.seen.lock().unwrap().contains(&(blob, Some(123_456))));
    assert_eq!(store.list().len(), 1);
    assert_eq!(files(&store), 2, "nothing unfinished is left");
}

/// What was written down may make no sense: then nothing is believed of it.
#[tokio::test]
async fn notes_that_lie_are_not_believed() {
    for notes in ["123457", "1300000", "", "one", "1 2", "-1"] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let (server, blob) = registry(Reply::Bytes);
        let part = folder.path().join("blobs").join(digest(&weights()).replace(':', "-")).with_extension("part");
        std::fs::create_dir_all(part.parent().unwrap()).unwrap();
        std::fs::write(&part, &weights()[..123_456]).unwrap();
        std::fs::write(part.with_extension("parts"), notes).unwrap();
        pull(&server, &store, "tiny").await.0.unwrap();
        assert!(server.seen.lock().unwrap().contains(&(blob, Some(0))), "{notes:?}");
    }
}

#[tokio::test]
async fn c05_bytes_with_another_digest_are_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = registry(|mut bytes| {
        bytes[77] ^= 1;
        Reply::Bytes(bytes)
    });
    let error = pull(&server, &store, "tiny").await.0.unwrap_err();
    assert!(error.to_string().starts_with("digest mismatch, file must be downloaded again: want sha256:"), "{error}");
    assert_eq!(store.list().len(), 0);
    let files = std::fs::read_dir(folder.path().join("blobs")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<String> = files.collect();
    left.sort();
    let of_config = digest(CONFIG).replace(':', "-");
    assert_eq!(left, [format!("{of_config}.part"), format!("{of_config}.parts")], "the config, and that it is whole");
}

#[tokio::test]
async fn c05_more_bytes_than_announced_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = registry(|mut bytes| {
        bytes.push(0);
        Reply::Bytes(bytes)
    });
    let error = pull(&server, &store, "tiny").await.0.unwrap_err();
    assert!(error.to_string().contains("more than the 1200000 bytes"), "{error}");
    assert_eq!(store.list().len(), 0);
}

#[tokio::test]
async fn what_the_registry_says_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = registry(Reply::Bytes);
    let check = async |name: &str, expected: &str| {
        assert_eq!(pull(&server, &store, name).await.0.unwrap_err().to_string(), expected, "{name}");
    };
    check("missing", "pull model manifest: file does not exist").await;
    check("broken", "pull model manifest: 500: on fire").await;
    let elsewhere =
        "models are pulled from registry.ollama.ai and hf.co only, not from example.org; LANTERN_PULL_HOSTS names further hosts";
    check("example.org/a/b", elsewhere).await;
    assert_eq!(files(&store), 0);
    for (base, hub) in [("ftp://x", "https://x"), ("x", "https://x"), ("https://x", "x")] {
        assert!(Registry::new(base, hub).is_err());
    }
}

#[tokio::test]
async fn models_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = registry(Reply::Bytes);
    for name in ["hf.co/org/repo-GGUF:Q4_K_M", "huggingface.co/org/repo-GGUF:Q4_K_M"] {
        pull(&server, &store, name).await.0.unwrap();
    }
    assert_eq!(store.list().iter().map(|m| m.name.to_string()).collect::<Vec<_>>().len(), 2);
    assert_eq!(server.seen.lock().unwrap().iter().filter(|(path, _)| path.contains("/blobs/")).count(), 2, "each blob once");
    let error = pull(&server, &store, "hf.co/org/repo-GGUF:Q8_0").await.0.unwrap_err();
    assert_eq!(error.to_string(), "pull model manifest: file does not exist");
}

#[tokio::test]
async fn c02_c04_manifests_that_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (zeros, model) = (format!("sha256:{}", "0".repeat(64)), "application/vnd.ollama.image.model");
    let layer = |digest: &str, size: serde_json::Value| serde_json::json!({ "mediaType": model, "digest": digest, "size": size });
    let config = layer(&format!("sha256:{}", "1".repeat(64)), 2.into());
    let with = |layers: serde_json::Value| {
        serde_json::json!({ "schemaVersion": 2, "mediaType": "x", "config": config, "layers": layers }).to_string()
    };
    let good = layer(&zeros, 5.into());
    let traversal = layer("sha256:../../../../etc/passwd", 5.into());
    for (index, (manifest, part)) in [
        (with(serde_json::json!([])), "no GGUF model"),
        (with(serde_json::json!([null])), "invalid type: null"),
        (with(serde_json::json!(null)), "invalid type: null"),
        (with(serde_json::json!(vec![good.clone(); 65])), "65 layers, the limit is 64"),
        (with(serde_json::json!([layer(&zeros, (-1).into())])), "invalid value"),
        (with(serde_json::json!([layer(&zeros, (1u64 << 63).into())])), "more than any disk holds"),
        (with(serde_json::json!([good, layer(&zeros, 6.into())])), "has two sizes"),
        (with(serde_json::json!([traversal])), "is not a digest"),
        ("x".repeat((1 << 20) + 1), "larger than any real one"),
        ("[".repeat(100_000), "invalid type"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = "/v2/library/wrong/manifests/latest".to_owned();
        let server = serve(HashMap::from([(path, Reply::Bytes(manifest.into_bytes()))]));
        let error = pull(&server, &store, "wrong").await.0.unwrap_err().to_string();
        assert!(error.contains(part), "{index}: {error:?} does not say {part:?}");
        assert_eq!(files(&store), 0);
    }
}

/// A registry that is away may not send us home; one at home may.
#[tokio::test]
async fn c07_redirects() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let endless = serve(HashMap::from([(
        "/v2/library/x/manifests/latest".to_owned(),
        Reply::Redirect("/v2/library/x/manifests/latest".into()),
    )]));
    let error = pull(&endless, &store, "x").await.0.unwrap_err().to_string();
    assert!(error.contains("too many redirects"), "{error}");
    assert_eq!(endless.seen.lock().unwrap().len(), 6);
    let (good, _) = registry(Reply::Bytes);
    let paths = [
        "/v2/library/tiny/manifests/latest".to_owned(),
        format!("/v2/library/tiny/blobs/{}", digest(&weights())),
        format!("/v2/library/tiny/blobs/{}", digest(CONFIG)),
    ];
    let here = serve(paths.map(|path| (path.clone(), Reply::Redirect(format!("{}{path}", good.address)))).into());
    pull(&here, &store, "tiny").await.0.unwrap();
    assert_eq!(good.seen.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn what_does_not_fit_is_not_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let (server, _) = registry(Reply::Bytes);
    let small = Registry::new(&server.address, &server.address).unwrap().for_memory(Some(128 << 20));
    let error = small.pull(&store, &ModelName::parse("tiny").unwrap(), |_| {}).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "the model needs 0.1 GiB of memory, this machine has 0.1 GiB: choose a smaller model or smaller weights of it"
    );
    assert_eq!((server.seen.lock().unwrap().len(), files(&store)), (1, 0), "its manifest was asked for, nothing more");
}

#[tokio::test]
async fn a_layer_named_twice_and_one_of_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let layer = |kind: &str, bytes: &[u8]| serde_json::json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
    let license = layer("application/vnd.ollama.image.license", b"free");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": layer("application/vnd.docker.container.image.v1+json", CONFIG),
        "layers": [layer("application/vnd.ollama.image.model", b"weights"), license, license,
            layer("application/vnd.ollama.image.system", b"")],
    });
    let blob = |bytes: &[u8]| (format!("/v2/library/odd/blobs/{}", digest(bytes)), Reply::Bytes(bytes.to_vec()));
    let path = "/v2/library/odd/manifests/latest".to_owned();
    let server = serve(HashMap::from([
        (path, Reply::Bytes(manifest.to_string().into_bytes())),
        blob(CONFIG),
        blob(b"weights"),
        blob(b"free"),
    ]));
    pull(&server, &store, "odd").await.0.unwrap();
    let found = store.find(&ModelName::parse("odd").unwrap()).unwrap();
    assert_eq!((found.licenses().len(), found.system().as_deref()), (2, Some("")));
    assert_eq!(files(&store), 4, "nothing unfinished is left");
}
