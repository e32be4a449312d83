//! The structure of the workspace: dependencies between crates, paths in the documents, lengths.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longer files say why in their module docs, and are tables.
const MAX_LINES: usize = 1000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

#[test]
fn crates_depend_downwards_only() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        (
            "ketch",
            &[
                "bench",
                "builder",
                "daemon",
                "engine",
                "image",
                "network",
                "runtime",
                "runtime-native",
                "runtime-wasm",
                "state",
                "sys",
                "testkit",
            ][..],
        ),
        ("builder", &["engine", "image", "state", "sys"]),
        (
            "daemon",
            &[
                "builder",
                "engine",
                "image",
                "network",
                "runtime",
                "runtime-native",
                "state",
                "sys",
            ],
        ),
        (
            "engine",
            &[
                "image",
                "network",
                "runtime",
                "runtime-native",
                "runtime-wasm",
                "state",
                "sys",
                "volume",
            ],
        ),
        (
            "monitor",
            &[
                "network",
                "runtime",
                "runtime-native",
                "state",
                "sys",
                "volume",
            ],
        ),
        ("volume", &["state", "sys"]),
        ("network", &["state", "sys", "testkit"]),
        ("runtime-native", &["runtime", "state", "sys", "testkit"]),
        ("runtime-wasm", &["runtime", "state", "sys"]),
        ("image", &["state", "sys"]),
        ("state", &["sys"]),
        ("runtime", &[]),
        ("sys", &[]),
        ("pid1", &[]),
        ("testkit", &[]),
        ("bench", &[]),
        (
            "benches",
            &[
                "engine",
                "image",
                "runtime",
                "runtime-native",
                "runtime-wasm",
                "state",
                "sys",
            ],
        ),
    ]);
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: Vec<&str> = packages
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let edges = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the list"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = dependency["name"].as_str().unwrap();
            let ours = names.contains(&dependency);
            assert!(
                !ours || edges.contains(&dependency),
                "{name} must not use {dependency}"
            );
        }
    }
}

#[test]
fn paths_in_the_documents_exist() {
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "docs/isolation.md",
        "fixtures/SOURCES.md",
    ] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let is_path = word.contains('/')
                && [".rs", ".md", ".py", ".sh"]
                    .iter()
                    .any(|end| word.ends_with(end))
                && !word.contains(['*', ' ', '{', '<']);
            if is_path {
                assert!(root().join(word).exists(), "{document} names `{word}`");
            }
        }
    }
}

#[test]
fn files_have_a_bearable_length() {
    let output = Command::new("git")
        .args(["ls-files", "*.rs"])
        .current_dir(root())
        .output()
        .unwrap();
    for file in String::from_utf8(output.stdout).unwrap().lines() {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else {
            continue;
        };
        let lines = text.lines().count();
        let is_table = text.contains("table");
        assert!(lines <= MAX_LINES || is_table, "{file} has {lines} lines");
    }
}
