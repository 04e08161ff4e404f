//! A model carried from one machine to another in one file, and files that only look like that.

#![allow(clippy::unwrap_used, reason = "tests")]

mod daemon;

use std::io::{Cursor, Read};
use std::path::Path;
use std::process::Output;

use daemon::{Daemon, command};
use serde_json::Value;
use testkit::{Said, script_model};

fn lantern(models: &Path, arguments: &[&str]) -> Output {
    // Nobody answers there: the command works on the folder itself.
    command(models).env("OLLAMA_HOST", "127.0.0.1:1").args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn reason(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder.join("blobs"))
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A daemon with a model that has a system prompt, and that model's archive.
fn exported(folder: &Path) -> (Daemon, String) {
    let d = Daemon::start();
    d.install("plain", &script_model(&[Said::Text("Ahoy.")], "{{ messages[0].content }}").bytes());
    let made = d.post(
        "/api/create",
        &serde_json::json!({ "model": "pirate", "from": "plain", "system": "Be a pirate.", "stream": false }),
    );
    assert_eq!(made.status, 200, "{}", made.body);
    let file = folder.join("pirate.tar").to_str().unwrap().to_owned();
    let said = out(&lantern(d.models.path(), &["export", "pirate", &file]));
    assert!(said.starts_with("exported pirate:latest to ") && said.contains("elsewhere: lantern import "), "{said}");
    (d, file)
}

type Entries = Vec<(String, Vec<u8>)>;

fn entries(bytes: &[u8]) -> Entries {
    let mut entries = Entries::new();
    for entry in tar::Archive::new(Cursor::new(bytes)).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (path, mut content) = (entry.path().unwrap().to_str().unwrap().to_owned(), Vec::new());
        entry.read_to_end(&mut content).unwrap();
        entries.push((path, content));
    }
    entries
}

fn written(entries: &Entries, kind: tar::EntryType) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut head = tar::Header::new_ustar();
        // Written as it is: the crate itself refuses to write such paths.
        head.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        head.set_entry_type(kind);
        head.set_size(content.len() as u64);
        head.set_cksum();
        archive.append(&head, &content[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn a_model_moves_by_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let (d, file) = exported(folder.path());
    let again = folder.path().join("again.tar").to_str().unwrap().to_owned();
    out(&lantern(d.models.path(), &["export", "pirate", &again]));
    assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(&again).unwrap(), "the same bytes every time");
    assert!(reason(&lantern(d.models.path(), &["export", "pirate", &file])).contains("File exists"), "nothing is overwritten");
    assert!(reason(&lantern(d.models.path(), &["export", "nobody"])).contains("model nobody:latest not found"));

    let other = Daemon::start();
    let told: Value = serde_json::from_str(&out(&lantern(other.models.path(), &["import", &file, "--json"]))).unwrap();
    assert_eq!((&told["name"], &told["family"]), (&"pirate:latest".into(), &"llama".into()));
    out(&lantern(other.models.path(), &["import", &file, "--name", "mine:1"]));
    let show = |d: &Daemon, model: &str| d.post("/api/show", &serde_json::json!({ "model": model })).json();
    assert_eq!(show(&other, "pirate")["system"], "Be a pirate.");
    assert_eq!(show(&other, "mine:1")["system"], "Be a pirate.");
    let digest = |d: &Daemon| {
        let tags = d.get("/api/tags").json();
        let models = tags["models"].as_array().unwrap().clone();
        models.iter().find(|m| m["name"] == "pirate:latest").unwrap()["digest"].clone()
    };
    assert_eq!(digest(&d), digest(&other), "the same manifest");
}

#[test]
fn c13_archives_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let (_d, file) = exported(folder.path());
    let bytes = std::fs::read(&file).unwrap();
    let entries = entries(&bytes);
    let changed = |change: &dyn Fn(&mut Entries)| {
        let mut entries = entries.clone();
        change(&mut entries);
        written(&entries, tar::EntryType::Regular)
    };
    let model = entries.iter().position(|(_, content)| content.starts_with(b"GGUF")).unwrap();
    let store = tempfile::tempdir().unwrap();
    let check = |bytes: &[u8], part: &str| {
        let file = folder.path().join("wrong.tar");
        std::fs::write(&file, bytes).unwrap();
        let reason = reason(&lantern(store.path(), &["import", file.to_str().unwrap()]));
        assert!(reason.contains(part), "{reason:?} does not say {part:?}");
        assert_eq!(files(store.path()), Vec::<String>::new(), "{part}: nothing is left");
    };
    let evil = "../".repeat(12) + "tmp/evil";
    check(&changed(&|e| e.push((evil.clone(), b"x".to_vec()))), "belongs to no model");
    check(&changed(&|e| e[3].0 = evil.clone()), "belongs to no model");
    check(&changed(&|e| e[0].0 = "/etc/passwd".into()), "stands where oci-layout and index.json do");
    check(&changed(&|e| e.swap(0, 1)), "stands where oci-layout and index.json do");
    check(&changed(&|e| e[model].1[100] ^= 1), "the archive is damaged: blobs/sha256/");
    check(&changed(&|e| e[2].1[10] ^= 1), "the archive is damaged: blobs/sha256/");
    check(&changed(&|e| _ = e.remove(model)), " is missing");
    check(&changed(&|e| e.truncate(2)), "it has no manifest");
    check(&changed(&|e| e[1].1 = b"{}".to_vec()), "missing field");
    check(&changed(&|e| e[1].1 = vec![b' '; (1 << 20) + 1]), "larger than any real one");
    check(&written(&entries, tar::EntryType::Symlink), "is no file");
    check(&bytes[..bytes.len() / 2], "cannot import");
    // A model that a server refuses gets no name either.
    let broken = changed(&|e| {
        let gguf = b"GGUF\x03\0\0\0 is cut off here".to_vec();
        let (old, new) = (e[model].0.replace("blobs/sha256/", "sha256:"), testkit::digest(&gguf));
        let text = String::from_utf8(e[2].1.clone()).unwrap();
        let manifest = text.replace(&old, &new).into_bytes();
        let named = String::from_utf8(e[1].1.clone()).unwrap();
        let before = e[2].0.replace("blobs/sha256/", "sha256:");
        e[1].1 = named.replace(&before, &testkit::digest(&manifest)).into_bytes();
        e[2] = (testkit::digest(&manifest).replace("sha256:", "blobs/sha256/"), manifest);
        e[model] = (new.replace("sha256:", "blobs/sha256/"), gguf);
    });
    check(&broken, "damaged model file: tensor count");
}

/// An archive that is refused takes nothing of a model that is here, whatever it calls its blobs.
#[test]
fn a_refused_archive_removes_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (d, file) = exported(folder.path());
    let mut entries = entries(&std::fs::read(&file).unwrap());
    let model = entries.iter().position(|(_, content)| content.starts_with(b"GGUF")).unwrap();
    let (config, weights) = (entries[3].1.clone(), entries[model].1.clone());
    (entries[3].1, entries[model].1) = (weights, config);
    let before = files(d.models.path());
    let file = folder.path().join("swapped.tar");
    std::fs::write(&file, written(&entries, tar::EntryType::Regular)).unwrap();
    let told = reason(&lantern(d.models.path(), &["import", file.to_str().unwrap()]));
    assert!(told.contains("the archive is damaged"), "{told}");
    assert_eq!(files(d.models.path()), before);
}
