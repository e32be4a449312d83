//! Loading, saving and importing.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::host::{Host, Tar, chain};
use image::{
    Digest, ErrorKind, Force, ImportOptions, LayeredRoot, Platform, Reference, SaveOptions,
};

fn save(host: &Host, names: &[&str]) -> Vec<u8> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut bytes = Vec::new();
    host.store
        .save(&names, &SaveOptions::default(), &mut bytes)
        .unwrap();
    bytes
}

fn layers() -> [Vec<u8>; 2] {
    [
        Tar::new().file("etc/os", b"one").end(),
        Tar::new().file("etc/app", b"two").end(),
    ]
}

#[test]
fn save_then_load_gives_the_same_image_and_the_same_bytes() {
    let from = Host::new();
    let image = from.image("registry.example/app:1", &layers());
    from.image("other", &[Tar::new().file("x", b"").end()]);
    let names = ["registry.example/app:1", "other"];
    let bytes = save(&from, &names);
    let to = Host::new();
    let loaded = to.store.load(&bytes[..], None, &()).unwrap();
    assert_eq!(loaded.len(), 2);
    let again = to.store.resolve("registry.example/app:1", None).unwrap();
    assert_eq!(
        (again.id, again.manifest_digest),
        (image.id, image.manifest_digest)
    );
    assert_eq!(save(&to, &names), bytes);
    to.assert_nothing_half_made();
    // Only what the images need has stayed.
    assert_eq!(
        to.count(&to.layout.content()),
        from.count(&from.layout.content())
    );
}

#[test]
fn load_compressed_archive_is_told_by_its_bytes() {
    let from = Host::new();
    let image = from.image("app", &layers());
    let bytes = save(&from, &["app"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&bytes).unwrap();
    let forms = [
        gzip.finish().unwrap(),
        xz.finish().unwrap(),
        zstd::encode_all(&bytes[..], 1).unwrap(),
    ];
    for form in forms {
        let to = Host::new();
        to.store.load(&form[..], None, &()).unwrap();
        assert_eq!(to.store.resolve("app", None).unwrap().id, image.id);
    }
}

#[test]
fn save_dir_is_a_layout_that_loads() {
    let from = Host::new();
    let image = from.image("app", &layers());
    let dir = from.dir.path().join("layout");
    from.store
        .save_dir(&["app".to_owned()], &SaveOptions::default(), &dir)
        .unwrap();
    let twice = from
        .store
        .save_dir(&["app".to_owned()], &SaveOptions::default(), &dir);
    assert!(twice.is_err());
    let to = Host::new();
    to.store.load_dir(&dir, None, &()).unwrap();
    assert_eq!(to.store.resolve("app", None).unwrap().id, image.id);
    // A link in the place of a blob is no blob.
    let to = Host::new();
    let blob = fs::read_dir(dir.join("blobs/sha256"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    fs::remove_file(&blob).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &blob).unwrap();
    to.store.load_dir(&dir, None, &()).unwrap_err();
    assert_eq!(to.count(&to.layout.content()), 0);
}

/// An archive as `docker save` wrote it before it was an OCI layout, too.
fn docker_archive(manifest: &serde_json::Value) -> Tar {
    let [lower, upper] = layers();
    let config = docker_config();
    Tar::new()
        .file("config.json", config.as_bytes())
        .file("aaaa/layer.tar", &lower)
        .file("bbbb/layer.tar", &upper)
        .symlink("cccc/layer.tar", "../aaaa/layer.tar")
        .file("manifest.json", manifest.to_string().as_bytes())
}

fn docker_config() -> String {
    let [lower, upper] = layers();
    serde_json::json!({
        "os": "linux", "architecture": Platform::host().architecture(), "config": {"Cmd": ["a"]},
        "rootfs": {"type": "layers", "diff_ids":
            [Digest::of(&lower), Digest::of(&upper), Digest::of(&lower)]},
    })
    .to_string()
}

#[test]
fn load_docker_archive_follows_links_inside() {
    let host = Host::new();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["app:1", "app:2"],
        "Layers": ["aaaa/layer.tar", "bbbb/layer.tar", "cccc/layer.tar"]}]);
    let bytes = docker_archive(&manifest).end();
    let loaded = host.store.load(&bytes[..], None, &()).unwrap();
    assert_eq!(loaded[0].names.len(), 2);
    let image = host.store.resolve("app:2", None).unwrap();
    assert_eq!(image.id, Digest::of(docker_config().as_bytes()));
    let dirs = host.store.ensure_unpacked(&image, &()).unwrap();
    let root = LayeredRoot::new(dirs);
    assert_eq!(root.read_bounded(Path::new("/etc/os"), 9).unwrap(), b"one");
}

#[test]
fn load_hostile_archive_is_refused_and_leaves_nothing() {
    let host = Host::new();
    let item = |config: &str, layer: &str| serde_json::json!([{"Config": config, "RepoTags": ["app"], "Layers": [layer, layer, layer]}]);
    let blob = format!("blobs/sha256/{}", Digest::of(b"another").hex());
    let good = item("config.json", "aaaa/layer.tar");
    let bomb = format!("{{\"manifests\":{}", "[".repeat(200_000));
    let both = br#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}"#;
    let table = [
        (
            "layer id ..",
            docker_archive(&item("config.json", "../../canary/secret")),
        ),
        (
            "layer absolute",
            docker_archive(&item("config.json", "/etc/passwd")),
        ),
        (
            "config ..",
            docker_archive(&item("../../canary/secret", "aaaa/layer.tar")),
        ),
        (
            "path ..",
            docker_archive(&good).file("../../canary/x", b"x"),
        ),
        (
            "link out",
            docker_archive(&good).symlink("l", "../../canary/secret"),
        ),
        (
            "hard link out",
            docker_archive(&good).hardlink("l", "../canary/secret"),
        ),
        ("blob with another digest", Tar::new().file(&blob, b"x")),
        ("blob name ..", Tar::new().file("blobs/sha256/..", b"x")),
        ("blob name short", Tar::new().file("blobs/sha256/00", b"x")),
        ("blob algorithm", Tar::new().file("blobs/md5/00", b"x")),
        (
            "manifest as link",
            Tar::new()
                .file("a", good.to_string().as_bytes())
                .symlink("manifest.json", "a"),
        ),
        (
            "index as link",
            docker_archive(&good).symlink("index.json", "config.json"),
        ),
        ("deep JSON", Tar::new().file("index.json", bomb.as_bytes())),
        ("index and manifest", Tar::new().file("index.json", both)),
        (
            "too large",
            Tar::new().file("index.json", &vec![b' '; 5 * 1024 * 1024]),
        ),
        ("no image", Tar::new().file("readme", b"x")),
        (
            "bad name",
            docker_archive(&serde_json::json!([{"Config": "config.json",
            "RepoTags": ["../../etc"], "Layers": ["aaaa/layer.tar"]}])),
        ),
        (
            "too few layers",
            docker_archive(&serde_json::json!([{"Config": "config.json",
            "RepoTags": ["app"], "Layers": ["aaaa/layer.tar"]}])),
        ),
    ];
    for (what, tar) in table {
        let error = host
            .store
            .load(&tar.end()[..], None, &())
            .map(|_| what)
            .unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidInput,
            "{what}: {}",
            chain(&error)
        );
        assert_eq!(host.count(&host.layout.content()), 0, "{what}");
        host.assert_nothing_half_made();
        host.assert_canary_unchanged();
    }
    assert!(host.store.list().unwrap().is_empty());
}

#[test]
fn load_one_platform_keeps_that_one() {
    let from = Host::new();
    let [lower, upper] = layers();
    let amd = from.put_image(
        "linux",
        "amd64",
        std::slice::from_ref(&lower),
        &[Digest::of(&lower)],
    );
    let arm = from.put_image(
        "linux",
        "arm64",
        std::slice::from_ref(&upper),
        &[Digest::of(&upper)],
    );
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [amd, arm]});
    let top = from.put(
        "application/vnd.oci.image.index.v1+json",
        index.to_string().as_bytes(),
    );
    from.store
        .record_pulled(&Reference::parse("multi").unwrap(), &top)
        .unwrap();
    let bytes = save(&from, &["multi"]);
    let to = Host::new();
    let arm64: Platform = "linux/arm64".parse().unwrap();
    let loaded = to.store.load(&bytes[..], Some(&arm64), &()).unwrap();
    assert_eq!(loaded[0].ids.len(), 1);
    let image = to.store.resolve("multi", Some(&arm64)).unwrap();
    assert_eq!(image.manifest_digest, arm.digest);
    let none: Platform = "linux/s390x".parse().unwrap();
    let to = Host::new();
    let error = to.store.load(&bytes[..], Some(&none), &()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(to.count(&to.layout.content()), 0);
}

#[test]
fn import_makes_an_image_that_unpacks() {
    let host = Host::new();
    let tar = Tar::new()
        .dir("etc", 0o755)
        .file("etc/hello", b"hello")
        .end();
    let options = ImportOptions {
        name: Some(Reference::parse("imported").unwrap()),
        changes: vec!["CMD [\"/bin/hello\"]".to_owned(), "ENV A=1".to_owned()],
        message: Some("by hand".to_owned()),
        platform: None,
        created: None,
    };
    let compressed = zstd::encode_all(&tar[..], 1).unwrap();
    let id = host.store.import(&compressed[..], &options).unwrap();
    let image = host.store.resolve("imported", None).unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.config.config.cmd.as_deref().unwrap(), ["/bin/hello"]);
    assert_eq!(image.config.rootfs.diff_ids, [Digest::of(&tar).to_string()]);
    let dirs = host.store.ensure_unpacked(&image, &()).unwrap();
    assert_eq!(fs::read(dirs[0].join("etc/hello")).unwrap(), b"hello");
    let history = host.store.history(&image).unwrap();
    assert_eq!(history[0].comment, "by hand");
    host.store.remove("imported", Force::No, &|_| None).unwrap();
    assert_eq!(host.count(&host.layout.content()), 0);
    assert_eq!(host.count(&host.layout.layers()), 0);
}

#[test]
fn import_of_something_else_leaves_nothing() {
    let host = Host::new();
    for bytes in [
        &b"not an archive, but long enough to be one"[..],
        b"",
        &[0; 4096],
    ] {
        host.store
            .import(bytes, &ImportOptions::default())
            .unwrap_err();
    }
    assert_eq!(host.count(&host.layout.content()), 0);
    host.assert_nothing_half_made();
}

#[test]
fn save_of_some_platforms_keeps_the_index_and_leaves_the_others_out() {
    let from = Host::new();
    let [lower, upper] = layers();
    let put = |architecture: &str, layer: &Vec<u8>| {
        let layer = std::slice::from_ref(layer);
        from.put_image("linux", architecture, layer, &[Digest::of(&layer[0])])
    };
    let (amd, arm) = (put("amd64", &lower), put("arm64", &upper));
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [amd, arm]});
    let top = from.put(
        "application/vnd.oci.image.index.v1+json",
        index.to_string().as_bytes(),
    );
    let name = Reference::parse("multi").unwrap();
    from.store.record_pulled(&name, &top).unwrap();
    let save = |platforms: &[&str]| {
        let platforms = platforms.iter().map(|text| text.parse().unwrap());
        let options = SaveOptions {
            platforms: platforms.collect(),
            ..SaveOptions::default()
        };
        let mut bytes = Vec::new();
        let saved = from.store.save(&["multi".to_owned()], &options, &mut bytes);
        saved.map(|()| bytes)
    };
    let to = Host::new();
    to.store
        .load(&save(&["linux/arm64"]).unwrap()[..], None, &())
        .unwrap();
    let found = to.store.list().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].manifest_digest, arm.digest);
    assert!(!to.store.content().has(&amd.digest));
    assert!(!to.store.content().has(&Digest::of(&lower)));
    // The name means the same index as before.
    let image = to
        .store
        .resolve("multi", Some(&"linux/arm64".parse().unwrap()))
        .unwrap();
    assert_eq!(image.index_digest, Some(top.digest));
    // The other one comes later and completes it.
    to.store
        .load(&save(&["linux/amd64"]).unwrap()[..], None, &())
        .unwrap();
    assert_eq!(to.store.list().unwrap().len(), 2);
    assert_eq!(
        save(&["linux/amd64", "linux/arm64"]).unwrap(),
        save(&[]).unwrap()
    );
    let error = save(&["linux/amd64", "linux/s390x"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn save_at_a_fixed_time_has_that_time_everywhere() {
    let host = Host::new();
    host.image("app", &layers());
    let options = SaveOptions {
        modified: 1_700_000_000,
        ..SaveOptions::default()
    };
    let mut bytes = Vec::new();
    host.store
        .save(&["app".to_owned()], &options, &mut bytes)
        .unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let times: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().header().mtime().unwrap())
        .collect();
    assert!(times.len() > 6 && times.iter().all(|time| *time == 1_700_000_000));
}
