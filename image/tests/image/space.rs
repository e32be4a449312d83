//! Space: what is full leaves nothing, what is counted is what `du` counts, and what is pruned goes.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use image::{ConvertOptions, PruneOptions, Reference, Removed, Store};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use state::Layout;

use crate::host::{Host, ROOT, Tar};

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn archive(of: &Host, names: &[&str]) -> Vec<u8> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut saved = Vec::new();
    of.store
        .save(&names, &image::SaveOptions::default(), &mut saved)
        .unwrap();
    saved
}

/// A file system of so many bytes, as long as this lives.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(bytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        match mount("tmpfs", dir.path(), "tmpfs", flags, Some(size.as_c_str())) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                #[expect(clippy::disallowed_methods, reason = "the tests' own switch")]
                let required = std::env::var("KETCH_TEST_REQUIRE").is_ok_and(|v| v == "all");
                assert!(!required, "cannot mount a tmpfs: {error}");
                drop(writeln!(
                    std::io::stderr(),
                    "skipped: cannot mount a tmpfs: {error}"
                ));
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn load_into_a_full_file_system_leaves_nothing() {
    let source = Host::new();
    let layer = |name: &str| Tar::new().file(name, &noise(1_500_000)).end();
    source.image("app", &[layer("one"), layer("two")]);
    let saved = archive(&source, &["app"]);
    // Too small for the blobs; large enough for them and not for the files.
    for bytes in [1_000_000, 4_500_000] {
        let Some(small) = Small::mount(bytes) else {
            return;
        };
        let layout = Layout::open(small.0.path().join("root"), small.0.path().join("run")).unwrap();
        let store = Store::open(&layout, ROOT).unwrap();
        let error = store.load(&saved[..], None, &()).unwrap_err();
        assert!(
            crate::host::chain(&error).contains("No space left"),
            "{}",
            crate::host::chain(&error)
        );
        store.empty_trash().unwrap();
        for dir in [
            layout.content(),
            layout.tmp(),
            layout.trash(),
            layout.layers(),
        ] {
            assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "{dir:?}");
        }
        assert!(store.list().unwrap().is_empty());
    }
}

/// What `du` counts below a path.
fn du(path: &Path) -> u64 {
    let done = Command::new("du")
        .args(["--summarize", "--block-size=1"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn usage_agrees_with_du_and_knows_what_is_shared() {
    let host = Host::new();
    let low = Tar::new()
        .file("big", &noise(400_000))
        .hardlink("same", "big")
        .dir("d", 0o755)
        .end();
    let high = Tar::new().file("top", &noise(100_000)).end();
    let one = host.image("one", std::slice::from_ref(&low));
    let two = host.image("two", &[low, high]);
    for image in [&one, &two] {
        host.store.ensure_unpacked(image, &()).unwrap();
    }
    host.store.content().put(b"nobody's").unwrap();
    let usage = host.store.usage().unwrap();
    let files: u64 = [host.layout.content(), host.layout.layers()]
        .iter()
        .map(|dir| du(dir))
        .sum();
    let own =
        |dir: &Path| std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(dir).unwrap()) * 512;
    // The two directories themselves, and the records beside the layers, are no image's.
    let records: u64 = std::fs::read_dir(host.layout.layers())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some())
        .map(|path| du(&path))
        .sum();
    let around = own(&host.layout.content()) + own(&host.layout.layers()) + records;
    assert_eq!(usage.total, files - around);
    assert_eq!(
        usage.unreferenced,
        du(&host.store.content().path(&image::Digest::of(b"nobody's")))
    );
    let of = |image: &image::Image| {
        let mut all = usage.images.iter();
        all.find(|usage| usage.id == image.id).unwrap().clone()
    };
    assert!(of(&one).shared > 400_000 && of(&one).unique() < 50_000);
    assert_eq!(of(&one).shared, of(&two).shared);
}

#[test]
fn prune_removes_what_has_no_name_and_keeps_what_is_used() {
    let host = Host::new();
    let image = |name: &str, content: &[u8]| {
        let image = host.image(name, &[Tar::new().file("f", content).end()]);
        host.store.ensure_unpacked(&image, &()).unwrap();
        image
    };
    let old = image("app", b"old");
    let new = image("app", b"new");
    let used = image("used", b"used");
    let in_use = |id: &image::Digest| (*id == used.id).then(|| "web".to_owned());
    let options = PruneOptions::default();
    let pruned = host.store.prune(&options, &in_use).unwrap();
    assert_eq!(pruned.removed, [Removed::Deleted(old.id)]);
    assert!(pruned.freed > 0);
    host.assert_nothing_half_made();
    let labelled = PruneOptions {
        all: true,
        labels: vec![("absent".to_owned(), None)],
        ..PruneOptions::default()
    };
    assert!(
        host.store
            .prune(&labelled, &in_use)
            .unwrap()
            .removed
            .is_empty()
    );
    let all = PruneOptions {
        all: true,
        ..PruneOptions::default()
    };
    let pruned = host.store.prune(&all, &in_use).unwrap();
    assert_eq!(pruned.removed.len(), 2, "{pruned:?}");
    assert!(pruned.removed.contains(&Removed::Deleted(new.id)));
    let left = host.store.list().unwrap();
    assert_eq!(left.len(), 1);
    let used = host.store.resolve("used", None).unwrap();
    assert!(host.store.ensure_unpacked(&used, &()).is_ok());
    assert_eq!(host.store.usage().unwrap().unreferenced, 0);
}

#[test]
fn convert_keeps_the_files_and_gives_the_same_bytes_again() {
    let host = Host::new();
    let image = host.image("app", &[Tar::new().file("f", &noise(100_000)).end()]);
    let files = host.store.ensure_unpacked(&image, &()).unwrap();
    for (form, magic) in [
        (image::Compression::Gzip, &[0x1f, 0x8b][..]),
        (image::Compression::Zstd, &[0x28, 0xb5][..]),
        (image::Compression::None, b"f\0"),
    ] {
        let convert = |name: &str| {
            let options = ConvertOptions {
                name: Reference::parse(name).unwrap(),
                compression: form,
                platform: None,
            };
            host.store.convert("app", &options, &()).unwrap()
        };
        let converted = convert("converted");
        assert_eq!(convert("again").manifest_digest, converted.manifest_digest);
        assert_eq!(converted.id, image.id, "the config is the same");
        let layer = converted.manifest.layers()[0].digest().to_string();
        let blob = host
            .store
            .content()
            .path(&image::Digest::parse(&layer).unwrap());
        assert!(std::fs::read(blob).unwrap().starts_with(magic), "{form:?}");
        assert_eq!(host.store.ensure_unpacked(&converted, &()).unwrap(), files);
    }
    host.assert_nothing_half_made();
}

#[test]
fn diff_of_two_images_lists_what_a_user_would_see() {
    let host = Host::new();
    let low = Tar::new()
        .dir("d", 0o755)
        .file("d/gone", b"1")
        .file("d/stays", b"1")
        .file("changed", b"1")
        .dir("hidden", 0o755)
        .file("hidden/below", b"1")
        .end();
    let high = Tar::new()
        .file("d/.wh.gone", b"")
        .file("changed", b"22")
        .dir("hidden", 0o755)
        .file("hidden/.wh..wh..opq", b"")
        .file("hidden/new", b"1")
        .end();
    host.image("base", std::slice::from_ref(&low));
    host.image("next", &[low, high]);
    let changes = host.store.diff("base", "next", None, &()).unwrap();
    let shown: Vec<_> = changes
        .iter()
        .map(|change| format!("{:?} {}", change.kind, change.path.display()))
        .collect();
    assert_eq!(
        shown,
        [
            "Changed /changed",
            "Deleted /d/gone",
            "Deleted /hidden/below",
            "Added /hidden/new",
        ]
    );
    assert!(
        host.store
            .diff("next", "next", None, &())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn import_at_a_fixed_time_gives_the_same_image() {
    let tar = Tar::new().file("f", b"x").end();
    let import = || {
        let host = Host::new();
        let options = image::ImportOptions {
            name: Some(Reference::parse("app").unwrap()),
            created: Some("2024-02-03T04:05:06Z".to_owned()),
            ..image::ImportOptions::default()
        };
        host.store.import(&tar[..], &options).unwrap();
        archive(&host, &["app"])
    };
    assert!(import() == import());
}

#[test]
fn mounted_image_shows_all_layers_read_only() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::new();
    let layers = [
        Tar::new().file("low", b"1").end(),
        Tar::new().file("high", b"2").end(),
    ];
    let image = host.image("app", &layers);
    let path = host.store.mount(&image, &()).unwrap();
    assert_eq!(host.store.mount(&image, &()).unwrap(), path);
    assert_eq!(std::fs::read(path.join("low")).unwrap(), b"1");
    assert_eq!(std::fs::read(path.join("high")).unwrap(), b"2");
    let refused = std::fs::File::create(path.join("new")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(host.store.mounted().unwrap(), [(image.id, path.clone())]);
    host.store.unmount(&image.id).unwrap();
    host.store.unmount(&image.id).unwrap();
    assert!(!path.exists());
    assert!(host.store.mounted().unwrap().is_empty());
}
