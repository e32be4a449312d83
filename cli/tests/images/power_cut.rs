//! Power cuts while an image is pulled, in a virtual machine. After each cut the store is looked at on
//! a disk as it could be then: whatever has its final name is what its name says, and a second pull
//! gives a good image.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{Need, Sandbox, Vm, WriteLog};

use crate::support::{
    KETCH, REGISTRY, Random, Registry, Tree, configuration, docker_archive, run, sha256, tree,
};

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many power cuts are tried.
const CUTS: usize = 100;

/// Mounts the disk, serves the image on loopback, and pulls it. The lines mark where the interesting
/// part begins and ends.
const PULL: &str = r#"
mkdir -p /disk /registry
mount -t ext4 /dev/vda /disk
tar x -f /storage.tar -C /registry
docker-registry serve /registry.yml >/dev/null 2>&1 &
until wget -q -O /dev/null http://127.0.0.1:5000/v2/; do sleep 0.2; done
export KETCH_ROOT=/disk/root KETCH_RUN=/run/ketch
ketch pull --progress json 127.0.0.1:5000/app 2>&1 || exit 1
"#;

/// An image in a registry: its storage, and what its layers and blobs look like when all is well.
struct Served {
    cx: Sandbox,
    registry: Registry,
    good: BTreeMap<String, Tree>,
}

impl Served {
    fn new() -> Option<Self> {
        let cx = Sandbox::new(KETCH, &[Need::Root, Need::Vm])?;
        let storage = cx.path().join("storage");
        let registry = Registry::start(&storage)?;
        let image = format!("{}/app", registry.host);
        let archive = cx.path().join("image.tar");
        make_image(&archive, &image);
        let directory = ("KETCH_LAYERS", "directory");
        for args in [
            vec!["load", "-i", archive.to_str().unwrap()],
            vec!["push", &image],
        ] {
            let mut command = cx.command();
            let done = command.args(&args).envs([directory]).output().unwrap();
            let text = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{args:?}: {text}");
        }
        let good = layers(&cx.path().join("root"));
        assert_eq!(good.len(), 3);
        Some(Self { cx, registry, good })
    }

    fn machine(&self, disk: &Path) -> Vm {
        let storage = self.cx.path().join("storage.tar");
        let dir = self.cx.path().join("storage");
        let (file, dir) = (storage.to_str().unwrap(), dir.to_str().unwrap());
        run("tar", &["-cf", file, "-C", dir, "."]);
        let config = configuration(Path::new("/registry"), "127.0.0.1:5000");
        Vm::new()
            .unwrap()
            .program("/bin/ketch", KETCH)
            .program("/bin/docker-registry", REGISTRY)
            .file("/registry.yml", config.as_bytes(), 0o644)
            .file("/storage.tar", &fs::read(&storage).unwrap(), 0o644)
            .disk(disk)
            .deadline(Duration::from_secs(400))
    }

    /// An empty file system in a file.
    fn disk(&self, name: &str) -> PathBuf {
        let path = self.cx.path().join(name);
        File::create(&path).unwrap().set_len(96 << 20).unwrap();
        let text = path.to_str().unwrap();
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", text]);
        path
    }

    /// Looks at the store on a disk, and pulls once more. Gives how many layers were complete.
    fn check(&self, disk: &Path, what: &str) -> usize {
        let mount = Mount::new(disk, &self.cx.path().join("mount"));
        let root = mount.0.join("root");
        let found = layers(&root);
        for (name, tree) in &found {
            assert!(*tree == self.good[name], "{what}: layer {name} is damaged");
        }
        let content = root.join("content/sha256");
        for entry in fs::read_dir(&content).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.len() == 64 {
                assert_eq!(sha256(&path), name, "{what}: a blob is damaged");
            }
        }
        let image = format!("{}/app", self.registry.host);
        let ketch = |args: &[&str]| {
            let done = Command::new(KETCH)
                .env_clear()
                .env("KETCH_ROOT", &root)
                .env("KETCH_RUN", self.cx.path().join("run-after"))
                .env("KETCH_LAYERS", "directory")
                .args(args)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{what}: {args:?}: {text}");
            String::from_utf8(done.stdout).unwrap()
        };
        ketch(&["images"]);
        ketch(&["pull", "-q", &image]);
        assert!(layers(&root) == self.good, "{what}: after a second pull");
        ketch(&["image", "inspect", &image]);
        // Nothing that was half made takes room for ever.
        assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0, "{what}");
        found.len()
    }
}

/// A file system in a file, mounted until it is dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(disk: &Path, target: &Path) -> Self {
        fs::create_dir_all(target).unwrap();
        let (disk, text) = (disk.to_str().unwrap(), target.to_str().unwrap());
        run("mount", &["-o", "loop", disk, text]);
        Self(target.to_path_buf())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        // A process that another test starts has copies of this one's descriptors until its `execve`.
        while !Command::new("umount")
            .arg(&self.0)
            .status()
            .unwrap()
            .success()
        {
            assert!(Instant::now() < deadline, "{} stays busy", self.0.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The layers that have a name and a record, and what is in them.
fn layers(root: &Path) -> BTreeMap<String, Tree> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root.join("layers")).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let record = path.with_extension("json");
        if name.len() == 64 && path.is_dir() && record.exists() {
            found.insert(name, tree(&path));
        }
    }
    found
}

/// An archive with an image of three layers, some hundred files each.
fn make_image(path: &Path, name: &str) {
    let mut random = Random(88_172_645_463_325_252);
    let layers = (0..3).map(|layer| {
        let mut tar = tar::Builder::new(Vec::new());
        for file in 0..120 {
            let size = usize::try_from(random.next() % 16_384).unwrap();
            let bytes = random.bytes(size);
            let mut header = tar::Header::new_ustar();
            header.set_size(size as u64);
            header.set_mode(0o640);
            header.set_mtime(1_700_000_000 + file);
            let path = format!("layer{layer}/dir{}/file{file}", file % 7);
            tar.append_data(&mut header, path, bytes.as_slice())
                .unwrap();
        }
        tar.into_inner().unwrap()
    });
    docker_archive(path, name, &layers.collect::<Vec<_>>());
}

#[test]
fn power_cut_at_any_write_of_a_pull_leaves_only_whole_layers() {
    let Some(served) = Served::new() else { return };
    let disk = served.disk("disk");
    let before = served.cx.path().join("before");
    fs::copy(&disk, &before).unwrap();
    let log = served.cx.path().join("writes");
    let pulled = served.machine(&disk).log_writes(&log).run(PULL);
    assert_eq!(pulled.code, 0, "{pulled}");
    let log = WriteLog::open(&log);
    assert!(log.len() > CUTS, "{} writes", log.len());
    let certain_disk = File::options().write(true).open(&before).unwrap();
    let (mut certain, mut random) = (0, Random(1));
    let mut complete = Vec::new();
    for point in 1..=CUTS {
        let cut = log.len() * point / CUTS;
        certain = log.write_certain(&certain_disk, certain, cut);
        // A file of its own: a loop device that is still being detached from the last one would be
        // taken again, with what it remembers of it.
        let after = served.cx.path().join(format!("after{point}"));
        fs::copy(&before, &after).unwrap();
        let disk = File::options().write(true).open(&after).unwrap();
        log.write_some(&disk, certain, cut, || random.next() % 2 == 0);
        drop(disk);
        let what = format!("cut after write {cut} of {}", log.len());
        complete.push(served.check(&after, &what));
        fs::remove_file(&after).unwrap();
    }
    // The cuts were in the middle of it: some found nothing, some a part, the last all.
    assert_eq!(complete[0], 0);
    assert_eq!(complete[CUTS - 1], 3);
    assert!(
        complete.contains(&1) || complete.contains(&2),
        "{complete:?}"
    );
}

#[test]
fn machine_that_boots_again_after_a_power_cut_pulls_a_good_image() {
    let Some(served) = Served::new() else { return };
    let marks = [r#""status":"downloaded""#, r#""status":"unpacked""#];
    for (number, line) in marks.into_iter().enumerate() {
        let disk = served.disk(&format!("disk{number}"));
        let cut = served.machine(&disk).cut_power_at(line).run(PULL);
        assert_eq!(cut.code, -1, "the script must not end: {cut}");
        assert!(cut.output.contains(line), "{cut}");
        let again = served.machine(&disk).run(PULL);
        assert_eq!(again.code, 0, "{again}");
        served.check(&disk, line);
    }
}
