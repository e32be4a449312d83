//! Both forms of layers, held against each other: the same archive shows the same files, or both
//! refuse it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use image::{LayerForm, LayeredRoot, Store};

use crate::host::{Field, Host, ROOT, Tar, chain};

/// A host whose layers are EROFS files, where the kernel can mount them.
fn erofs_host() -> Option<Host> {
    let mut host = Host::with_mode(ROOT);
    host.store = host.store.with_layer_form(LayerForm::Erofs);
    let image = host.image("probe", &[Tar::new().file("f", b"x").end()]);
    match host.store.ensure_unpacked(&image, &()) {
        Ok(dirs) => {
            assert_eq!(fs::read(dirs[0].join("f")).unwrap(), b"x");
            remove_all(&host.store);
            Some(host)
        }
        Err(error) => {
            #[expect(clippy::disallowed_methods, reason = "the tests' own switch")]
            let required = std::env::var("KETCH_TEST_REQUIRE").is_ok_and(|v| v == "all");
            assert!(!required, "{}", chain(&error));
            drop(writeln!(
                std::io::stderr(),
                "skipped: no EROFS from files here: {}",
                chain(&error)
            ));
            None
        }
    }
}

/// Removes all images, and so unmounts all layers.
fn remove_all(store: &Store) {
    let all = image::PruneOptions {
        all: true,
        ..image::PruneOptions::default()
    };
    store.prune(&all, &|_| None).unwrap();
}

/// What can be seen of a file.
#[derive(Debug, PartialEq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    links: u64,
    size: u64,
    modified: (i64, i64),
    link: Option<PathBuf>,
    content: Option<Vec<u8>>,
    xattrs: Vec<(String, Vec<u8>)>,
}

fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let is_dir = meta.is_dir();
        let is_whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
        let mut xattrs = Vec::new();
        for name in ["user.a", "security.capability", "trusted.overlay.opaque"] {
            let mut value = [0; 256];
            if let Ok(length) = rustix::fs::lgetxattr(&path, name, &mut value) {
                xattrs.push((name.to_owned(), value[..length].to_vec()));
            }
        }
        if is_dir {
            let entries = fs::read_dir(&path).unwrap();
            todo.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let entry = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            device: meta.rdev(),
            // Those of directories depend on the file system.
            links: if is_dir { 0 } else { meta.nlink() },
            size: if is_dir { 0 } else { meta.size() },
            // The time of a whiteout means nothing.
            modified: match is_whiteout {
                true => (0, 0),
                false => (meta.mtime(), meta.mtime_nsec()),
            },
            link: meta.is_symlink().then(|| fs::read_link(&path).unwrap()),
            content: meta.is_file().then(|| fs::read(&path).unwrap()),
            xattrs,
        };
        assert!(!meta.file_type().is_socket());
        seen.insert(path.strip_prefix(root).unwrap().to_path_buf(), entry);
    }
    seen
}

/// Layers with everything that there is.
fn layers() -> Vec<(&'static str, Vec<u8>)> {
    let many = (0..400).fold(Tar::new().dir("many", 0o1777), |tar, n| {
        tar.file(&format!("many/a-rather-long-name-of-a-file-{n}"), &[1; 700])
    });
    let deep = "d/".repeat(40);
    vec![
        ("empty", Tar::new().end()),
        ("many files", many.end()),
        ("deep", Tar::new().file(&format!("{deep}f"), b"deep").end()),
        (
            "links",
            Tar::new()
                .file("f", b"content")
                .hardlink("h", "f")
                .hardlink("h2", "h")
                .symlink("s", "f")
                .symlink("long", &"x/".repeat(45))
                .end(),
        ),
        (
            "whiteouts",
            Tar::new()
                .dir("d", 0o700)
                .file("d/.wh.gone", b"")
                .file("o/.wh..wh..opq", b"")
                .file("o/new", b"1")
                .file(".wh.own", b"")
                .dir("own", 0o755)
                .file("again", b"1")
                .file(".wh.again", b"")
                .end(),
        ),
        (
            "replaced",
            Tar::new()
                .dir("x", 0o755)
                .file("x/below", b"1")
                .file("x", b"now a file")
                .file("y", b"1")
                .dir("y", 0o711)
                .symlink("z", "/etc")
                .file("z", b"no link")
                .end(),
        ),
        (
            "attributes",
            Tar::new()
                .pax(&[
                    ("SCHILY.xattr.user.a", b"value"),
                    ("mtime", b"1234567890.5"),
                ])
                .file("x", b"1")
                .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
                .dir("not-opaque", 0o755)
                .pax(&[("uid", b"3000000"), ("gid", b"4000000")])
                .file("far", b"1")
                .end(),
        ),
        (
            "special files",
            Tar::new()
                .header(&Field {
                    path: b"p",
                    flag: b'6',
                    ..Field::default()
                })
                .header(&Field {
                    path: b"tty",
                    flag: b'3',
                    device: (260, 70_000),
                    ..Field::default()
                })
                .end(),
        ),
        ("whiteout of nothing", Tar::new().file(".wh.", b"").end()),
        ("leaves the root", Tar::new().file("../x", b"").end()),
        (
            "through a link",
            Tar::new().symlink("l", "/").file("l/x", b"").end(),
        ),
        ("link to itself", Tar::new().hardlink("a", "a").end()),
        (
            "link to a directory",
            Tar::new().dir("d", 0o755).hardlink("a", "d").end(),
        ),
        ("link below", Tar::new().hardlink("a", "lower").end()),
    ]
}

#[test]
fn both_forms_show_the_same_files() {
    let Some(erofs) = erofs_host() else { return };
    let plain = Host::new();
    for (what, layer) in layers() {
        let unpack = |host: &Host| {
            let image = host.image("app", std::slice::from_ref(&layer));
            let dirs = host.store.ensure_unpacked(&image, &());
            dirs.map(|dirs| look(dirs.last().unwrap()))
        };
        match (unpack(&plain), unpack(&erofs)) {
            (Ok(plain), Ok(erofs)) => {
                let names =
                    |seen: &BTreeMap<PathBuf, Seen>| seen.keys().cloned().collect::<Vec<_>>();
                assert_eq!(names(&plain), names(&erofs), "{what}");
                for (path, seen) in &plain {
                    assert_eq!(seen, &erofs[path], "{what}: {}", path.display());
                }
            }
            (Err(plain), Err(erofs)) => assert_eq!(chain(&plain), chain(&erofs), "{what}"),
            (plain, erofs) => panic!("{what}: {:?} {:?}", plain.err(), erofs.err()),
        }
        erofs.assert_nothing_half_made();
    }
    remove_all(&erofs.store);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = erofs.layout.run().to_str().unwrap().to_owned();
    assert!(!mounts.contains(&own), "no mount is left");
}

#[test]
fn erofs_layers_stack_like_directories() {
    let Some(host) = erofs_host() else { return };
    let low = Tar::new()
        .dir("d", 0o750)
        .file("d/kept", b"low")
        .file("d/gone", b"low")
        .file("target", b"linked")
        .end();
    // `d` is implied here and takes its attributes from below; the link is to a lower layer.
    let high = Tar::new()
        .file("d/.wh.gone", b"")
        .file("d/new", b"high")
        .hardlink("link", "target")
        .end();
    let image = host.image("app", &[low, high]);
    let dirs = host.store.ensure_unpacked(&image, &()).unwrap();
    assert_eq!(dirs.len(), 3, "with the fix-up layer");
    let root = LayeredRoot::new(dirs);
    let read = |path: &str| root.read_bounded(Path::new(path), 100);
    assert_eq!(read("/d/kept").unwrap(), b"low");
    assert_eq!(read("/d/new").unwrap(), b"high");
    assert_eq!(read("/link").unwrap(), b"linked");
    assert!(read("/d/gone").is_err());
    assert_eq!(root.lookup(Path::new("/d")).unwrap().mode & 0o777, 0o750);
    // And by the kernel's overlay.
    let mounted = host.store.mount(&image, &()).unwrap();
    assert_eq!(fs::read(mounted.join("d/new")).unwrap(), b"high");
    assert!(!mounted.join("d/gone").exists());
    host.store.unmount(&image.id).unwrap();
    remove_all(&host.store);
    // The root of what has no files is no layer.
    assert_eq!(host.count(&host.layout.layers()), 1);
}

/// The names in the layer store.
fn names(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.layout.layers()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.ends_with(".json")).collect();
    names.sort();
    names
}

#[test]
fn layer_that_is_a_directory_already_is_used_as_one() {
    let Some(mut host) = erofs_host() else { return };
    let low = Tar::new()
        .dir("d", 0o750)
        .file("d/gone", b"low")
        .file("target", b"linked")
        .end();
    let high = Tar::new()
        .file("d/.wh.gone", b"")
        .hardlink("link", "target")
        .end();
    host.store = host.store.with_layer_form(LayerForm::Directory);
    let image = host.image("low", std::slice::from_ref(&low));
    host.store.ensure_unpacked(&image, &()).unwrap();
    let before = names(&host);
    assert_eq!(before.len(), 1);
    host.store = host.store.with_layer_form(LayerForm::Erofs);
    let image = host.image("app", &[low, high]);
    let dirs = host.store.ensure_unpacked(&image, &()).unwrap();
    // One more, and it is a file.
    let after = names(&host);
    assert!(after.len() == 2 && after.contains(&before[0]), "{after:?}");
    assert_eq!(
        dirs.last().unwrap().file_name().unwrap(),
        before[0].as_str()
    );
    // A stack of both is one tree.
    let mounted = host.store.mount(&image, &()).unwrap();
    assert_eq!(fs::read(mounted.join("link")).unwrap(), b"linked");
    assert!(!mounted.join("d/gone").exists());
    let mode = fs::metadata(mounted.join("d")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o750);
    host.store.unmount(&image.id).unwrap();
    remove_all(&host.store);
    assert_eq!(names(&host), ["empty"]);
}

#[test]
fn layer_that_does_not_fit_the_form_becomes_a_directory() {
    let Some(host) = erofs_host() else { return };
    // Some twenty megabytes of names and attributes. What is hidden behind them is checked as ever.
    let many = |end: Tar| {
        let tar = (0..8_000).fold(Tar::new(), |tar, n| {
            tar.pax(&[("SCHILY.xattr.user.a", &[b'v'; 3_000])])
                .file(&format!("f{n}"), b"")
        });
        Tar([tar.0, end.0].concat()).end()
    };
    let value = [b'v'; 65_536];
    let attribute = Tar::new()
        .pax(&[("SCHILY.xattr.user.a", &value)])
        .file("f", b"x")
        .end();
    for (what, layer) in [("entries", many(Tar::new())), ("value", attribute)] {
        let image = host.image("app", &[layer]);
        match host.store.ensure_unpacked(&image, &()) {
            Ok(dirs) => assert!(dirs[0].starts_with(host.layout.layers()), "{what}"),
            // ext4 keeps attributes in one block: too large a value is too large for a directory.
            Err(error) => assert_eq!(what, "value", "{}", chain(&error)),
        }
        remove_all(&host.store);
    }
    let hostile = many(Tar::new().symlink("l", "/").file("l/x", b"x"));
    let image = host.image("app", &[hostile]);
    let error = host.store.ensure_unpacked(&image, &()).unwrap_err();
    assert!(chain(&error).contains("is refused"), "{}", chain(&error));
    remove_all(&host.store);
    host.assert_nothing_half_made();
}

#[test]
fn layers_are_mounted_again_after_a_boot() {
    let Some(host) = erofs_host() else { return };
    let layer = Tar::new().file("f", b"x").end();
    let image = host.image("app", &[layer]);
    let dirs = host.store.ensure_unpacked(&image, &()).unwrap();
    // A boot: nothing is mounted, and the run directory is empty.
    rustix::mount::unmount(&dirs[0], rustix::mount::UnmountFlags::empty()).unwrap();
    fs::remove_dir_all(host.layout.run().join("layers")).unwrap();
    host.store.attach_layers(&dirs).unwrap();
    assert_eq!(fs::read(dirs[0].join("f")).unwrap(), b"x");
    host.store.attach_layers(&dirs).unwrap();
    remove_all(&host.store);
    let error = host.store.attach_layers(&dirs).unwrap_err();
    assert_eq!(error.kind(), image::ErrorKind::Internal);
}
