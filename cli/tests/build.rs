//! Builds through the real processes: `ketch build` on a base image with busybox, looked at with `ketch run`.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use testkit::{BUSYBOX, Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

macro_rules! guest {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/guests/built/", $name)).as_slice()
    };
}

/// A sandbox with the image `base`, and a context.
struct Place {
    cx: Sandbox,
    context: PathBuf,
}

impl Place {
    fn new() -> Option<Self> {
        let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
        let place = Self {
            context: cx.path().join("context"),
            cx,
        };
        fs::create_dir(&place.context).unwrap();
        place.base(&[]);
        Some(place)
    }

    /// Makes `base`: busybox as every program that tests use, a user, a link.
    fn base(&self, changes: &[&str]) {
        let busybox = fs::read(BUSYBOX).unwrap();
        let mut files: Vec<(String, &[u8], u32)> =
            vec![("bin/busybox".to_owned(), &busybox, 0o755)];
        let script = b"#!/bin/busybox sh\n";
        for name in [
            "sh",
            "cat",
            "echo",
            "ls",
            "id",
            "env",
            "mkdir",
            "touch",
            "rm",
            "ln",
            "wc",
            "stat",
            "chmod",
            "sleep",
            "test",
            "grep",
            "mv",
            "ps",
            "readlink",
            "find",
            "sort",
            "sha256sum",
            "head",
            "tr",
        ] {
            files.push((format!("bin/{name}"), &busybox, 0o755));
        }
        files.push(("bin/script".to_owned(), script, 0o755));
        files.push((
            "etc/passwd".to_owned(),
            b"root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n",
            0o644,
        ));
        files.push(("etc/group".to_owned(), b"root:x:0:\nus:x:50:\n", 0o644));
        let files: Vec<_> = files
            .iter()
            .map(|(path, bytes, mode)| (path.as_str(), *bytes, *mode))
            .collect();
        self.cx.image("base", &files, changes);
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own file, which nobody else reads"
    )]
    fn file(&self, path: &str, text: &str) {
        let path = self.context.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Builds the context with this Dockerfile.
    fn try_build(&self, dockerfile: &str, args: &[&str]) -> Run {
        self.file("Dockerfile", dockerfile);
        let mut all = vec!["build", "--progress=plain"];
        all.extend(args);
        let context = self.context.to_str().unwrap();
        all.push(context);
        self.cx.ketch(all)
    }

    /// The same, as `out`, and it works.
    fn build(&self, dockerfile: &str) -> Run {
        self.build_with(dockerfile, &[])
    }

    fn build_with(&self, dockerfile: &str, args: &[&str]) -> Run {
        let run = self.try_build(dockerfile, &[&["-t", "out"], args].concat());
        assert_eq!(run.code, 0, "{}\n{dockerfile}", run.stderr);
        assert!(run.stdout.starts_with("sha256:"), "{}", run.stdout);
        run
    }

    /// What a shell line prints in a container of `out`.
    fn sh(&self, line: &str) -> String {
        let run = self.cx.ketch(["run", "--rm", "out", "/bin/sh", "-c", line]);
        assert_eq!(run.code, 0, "{line}: {}", run.stderr);
        run.stdout
    }

    fn inspect(&self, image: &str) -> serde_json::Value {
        let run = self.cx.ketch(["image", "inspect", image]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let value: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        value[0].clone()
    }

    /// What is in the root directory of the state that holds these bytes.
    fn files_with(&self, needle: &str) -> Vec<String> {
        let mut found = Vec::new();
        search(&self.cx.path().join("root"), needle.as_bytes(), &mut found);
        found
    }

    /// Nothing is left of containers and half-made things.
    fn assert_clean(&self) {
        let root = self.cx.path().join("root");
        let names = |dir: &str| -> Vec<String> {
            let entries = fs::read_dir(root.join(dir)).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        assert_eq!(names("containers"), ["names"]);
        assert!(names("tmp").is_empty(), "{:?}", names("tmp"));
    }
}

fn search(dir: &Path, needle: &[u8], found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            search(&path, needle, found);
        } else if meta.is_file() {
            let bytes = fs::read(&path).unwrap();
            if bytes.windows(needle.len()).any(|window| window == needle) {
                found.push(path.display().to_string());
            }
        }
    }
}

fn steps(run: &Run, word: &str) -> usize {
    run.stderr
        .lines()
        .filter(|line| line.starts_with('#') && line.contains(word))
        .count()
}

#[test]
fn multi_stage_file_gives_an_image_that_runs() {
    let Some(place) = Place::new() else { return };
    place.file("src/main.txt", "hello\n");
    place.file("src/other.txt", "other\n");
    place.build(
        "# syntax=docker/dockerfile:1\nARG BASE=base\nFROM $BASE AS tools\nRUN mkdir /made && cat /etc/passwd >/made/users && ln -s users /made/link\n\
         FROM base AS unused\nRUN exit 9\n\
         FROM base\nARG WHO=world\nENV GREETING=\"hi $WHO\"\nWORKDIR /srv/app\nCOPY src/ ./\nCOPY --from=tools /made /made\n\
         RUN echo \"$GREETING\" >greeting && touch /root-file\nUSER me\nLABEL a.b=\"c d\"\nEXPOSE 80 53/udp\nVOLUME /data\nSTOPSIGNAL SIGINT\nCMD [\"cat\", \"greeting\"]\n",
    );
    assert_eq!(place.cx.ketch(["run", "--rm", "out"]).stdout, "hi world\n");
    assert_eq!(place.sh("cat main.txt /made/link; id -u; ls /"), {
        let users = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
        format!("hello\n{users}1000\nbin\ndata\ndev\netc\nmade\nproc\nroot-file\nsrv\nsys\n")
    });
    let config = &place.inspect("out")["Config"];
    assert_eq!(config["WorkingDir"], "/srv/app");
    assert_eq!(config["Labels"]["a.b"], "c d");
    assert_eq!(config["StopSignal"], "SIGINT");
    assert!(config["ExposedPorts"]["53/udp"].is_object() && config["Volumes"]["/data"].is_object());
    place.assert_clean();
}

#[test]
fn second_build_finds_everything_and_a_changed_file_what_lies_before() {
    let Some(place) = Place::new() else { return };
    let dockerfile = "FROM base\nRUN echo one >/one\nCOPY a.txt /\nRUN cat /a.txt >/b.txt\n";
    place.file("a.txt", "1");
    let first = place.build(dockerfile);
    assert_eq!(
        (steps(&first, "CACHED"), steps(&first, "DONE")),
        (1, 3),
        "{}",
        first.stderr
    );
    let second = place.build(dockerfile);
    assert_eq!(
        (steps(&second, "CACHED"), steps(&second, "DONE")),
        (4, 0),
        "{}",
        second.stderr
    );
    assert_eq!(first.stdout, second.stdout);
    place.file("a.txt", "2");
    let third = place.build(dockerfile);
    assert_eq!(
        (steps(&third, "CACHED"), steps(&third, "DONE")),
        (2, 2),
        "{}",
        third.stderr
    );
    assert_eq!(place.sh("cat /b.txt"), "2");
    // The same content again, whatever its time is: nothing is done.
    place.file("a.txt", "1");
    let fourth = place.build(dockerfile);
    assert_eq!(steps(&fourth, "DONE"), 0, "{}", fourth.stderr);
    assert_eq!(fourth.stdout, first.stdout);
    // Layers that were built are directories, also where those of other images are files.
    let checked = place.cx.ketch(["system", "check"]);
    assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
    let without = place.build_with(dockerfile, &["--no-cache"]);
    assert_eq!(steps(&without, "DONE"), 3, "{}", without.stderr);
    assert_eq!(without.stdout, first.stdout);
}

#[test]
fn same_input_gives_the_same_digest_in_another_root() {
    let Some(one) = Place::new() else { return };
    let Some(two) = Place::new() else { return };
    let dockerfile = "FROM base\nWORKDIR /w\nCOPY . .\nRUN mkdir d && echo x >d/f && ln d/f d/g && rm -f a.txt && mkdir -p /etc/new\n";
    // The same base image in both: its config has the time of its import.
    let archive = one.cx.path().join("base.tar");
    let archive = archive.to_str().unwrap();
    assert_eq!(one.cx.ketch(["save", "-o", archive, "base"]).code, 0);
    assert_eq!(two.cx.ketch(["rmi", "-f", "base"]).code, 0);
    assert_eq!(two.cx.ketch(["load", "-i", archive]).code, 0);
    let digest = |place: &Place, day: u64| {
        place.file("a.txt", "a");
        place.file("sub/b.txt", "b");
        for path in ["a.txt", "sub/b.txt"] {
            let file = fs::File::options()
                .write(true)
                .open(place.context.join(path))
                .unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(day * 86_400);
            file.set_modified(time).unwrap();
        }
        place.build(dockerfile);
        let image = place.inspect("out");
        let layers = image["RootFS"]["Layers"].as_array().unwrap().clone();
        (image["Id"].clone(), layers)
    };
    let first = digest(&one, 10_000);
    assert_eq!(first.1.len(), 4);
    assert_eq!(first, digest(&two, 20_000));
    let base = one.inspect("base")["RootFS"]["Layers"].clone();
    assert_eq!(base[0], first.1[0]);
    assert_eq!(
        one.sh("ls -a /w; stat -c %Y /w/d/f"),
        ".\n..\nDockerfile\nd\nsub\n0\n"
    );
}

#[test]
fn image_goes_through_an_archive_and_comes_back_the_same() {
    let Some(place) = Place::new() else { return };
    place.file("f", "data");
    place.build("FROM base\nCOPY f /f\nRUN rm /bin/script && echo x >/g && chmod 4711 /g\n");
    let archive = place.cx.path().join("out.tar");
    let archive = archive.to_str().unwrap();
    assert_eq!(place.cx.ketch(["save", "-o", archive, "out"]).code, 0);
    let Some(other) = Place::new() else { return };
    let loaded = other.cx.ketch(["load", "-i", archive]);
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);
    assert_eq!(
        other.sh("cat /f /g; stat -c %a /g; test ! -e /bin/script && echo gone"),
        "datax\n4711\ngone\n"
    );
    let layers = |place: &Place| place.inspect("out")["RootFS"]["Layers"].clone();
    assert_eq!(layers(&place), layers(&other));
    // And compressed at once.
    for (options, media_type) in [
        (["--compress", "--rm"], "tar+gzip"),
        (["-o", "type=image,compression=zstd"], "tar+zstd"),
    ] {
        place.build_with("FROM base\nCOPY f /f\n", &options);
        assert_eq!(place.sh("cat /f"), "data");
        let manifest = place.cx.ketch(["save", "-o", archive, "out"]);
        assert_eq!(manifest.code, 0, "{}", manifest.stderr);
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut fs::File::open(archive).unwrap(), &mut text).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(media_type), "{options:?}");
    }
}

#[test]
fn copy_follows_the_rules() {
    let Some(place) = Place::new() else { return };
    for path in ["a.txt", "b.txt", "c.bin", "d/e/f.txt", "d/g.bin"] {
        place.file(path, path);
    }
    place.file("mode", "x");
    symlink("a.txt", place.context.join("link")).unwrap();
    symlink("g.bin", place.context.join("d/inner")).unwrap();
    place.build(
        "FROM base AS links\nRUN mkdir -p /real && ln -s /real /dir && ln -s ../real /etc/rel\n\
         FROM links\nCOPY a.txt /renamed\nCOPY *.txt /txt/\nCOPY d /tree\nCOPY --chown=me:us --chmod=u=rw,go= mode /owned\nCOPY --chown=7 mode /seven\n\
         COPY a.txt /dir/\nCOPY a.txt /etc/rel/x\nCOPY link /followed\nCOPY --parents d/e/f.txt /parents/\nCOPY --exclude=*.bin --exclude=e d /no-bin/\n\
         COPY --link b.txt /linked/\nCOPY [\"a.txt\", \"/with space\"]\nCOPY <<EOF <<'RAW' /docs/\nhome is $HOME${X:-!}\nEOF\n$HOME\nRAW\n",
    );
    assert_eq!(
        place.sh("cat /renamed; ls /txt; ls /tree; ls /tree/e"),
        "a.txta.txt\nb.txt\ne\ng.bin\ninner\nf.txt\n"
    );
    assert_eq!(
        place.sh("stat -c '%u %g %a' /owned /seven /renamed"),
        "1000 50 600\n7 7 644\n0 0 644\n"
    );
    assert_eq!(
        place.sh("cat /real/a.txt /real/x; readlink /dir; readlink /etc/rel"),
        "a.txta.txt/real\n../real\n"
    );
    assert_eq!(
        place.sh("cat /followed; test -L /followed || echo file; readlink /tree/inner"),
        "a.txtfile\ng.bin\n"
    );
    assert_eq!(
        place.sh("cat /parents/d/e/f.txt; ls /no-bin; cat /linked/b.txt '/with space'"),
        "d/e/f.txtinner\nb.txta.txt"
    );
    assert_eq!(place.sh("cat /docs/EOF /docs/RAW"), "home is !\n$HOME\n");
}

#[test]
fn copy_refuses_what_it_cannot_do_and_says_where() {
    let Some(place) = Place::new() else { return };
    place.file("a", "a");
    place.file("dir/f", "f");
    place.file("hidden/x", "x");
    place.file(".dockerignore", "hidden\n");
    let table = [
        (
            "FROM base\nCOPY none /\n",
            "Dockerfile:2:6: `none` is not in the build context",
        ),
        (
            "FROM base\nCOPY hidden/x /\n",
            "left out of the build context",
        ),
        ("FROM base\nCOPY a dir /x\n", "must end with `/`"),
        ("FROM base\nCOPY dir /bin/sh\n", "no directory"),
        (
            "FROM base\nRUN mkdir /d && ln -s /d /l\nCOPY --parents dir/f /\nRUN rm -r /dir && ln -s /d /dir\nCOPY --parents dir /\n",
            "cannot put a directory at `/dir`",
        ),
        (
            "FROM base\nCOPY a /bin\nCOPY dir/f /bin/a/\n",
            "no directory",
        ),
        (
            "FROM base\nCOPY --from=localhost:1/nothing:1 /a /\n",
            "Dockerfile:2:13: cannot use the image `localhost:1/nothing:1`",
        ),
        ("FROM base\nCOPY --chown=nobody-here a /\n", "nobody-here"),
        ("FROM base\nCOPY --chmod=9 a /\n", "`9` is no mode"),
        ("FROM base\nCOPY http://x/y /\n", "COPY takes files only"),
        ("FROM base\nADD file:///etc/passwd /\n", "no source"),
    ];
    for (dockerfile, expected) in table {
        let run = place.try_build(dockerfile, &["-t", "bad"]);
        assert_eq!(run.code, 1, "{dockerfile}");
        assert!(
            run.stderr.contains(expected),
            "{dockerfile}: {}",
            run.stderr
        );
    }
    assert_eq!(place.cx.ketch(["image", "inspect", "bad"]).code, 1);
    place.assert_clean();
}

#[test]
fn failing_run_tells_line_code_and_output_and_names_nothing() {
    let Some(place) = Place::new() else { return };
    let run = place.try_build(
        "FROM base\nRUN echo kept >/x\nRUN echo before && \\\n    echo why >&2 && exit 42\n",
        &["-t", "bad"],
    );
    assert_eq!(run.code, 1);
    for expected in [
        "Dockerfile:3:1: the command ended with exit code 42",
        "| before",
        "| why",
        " 3 | RUN echo before && \\",
        "| ^",
    ] {
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
    }
    assert_eq!(place.cx.ketch(["image", "inspect", "bad"]).code, 1);
    place.assert_clean();
    // What was completed is there for the next build.
    let run = place.build("FROM base\nRUN echo kept >/x\nRUN true\n");
    assert_eq!(steps(&run, "CACHED"), 2, "{}", run.stderr);
}

#[test]
fn wrong_files_are_refused_with_their_lines() {
    let Some(place) = Place::new() else { return };
    let table = [
        (
            "FROM base\nRUNN x\n",
            " 2 | RUNN x",
            "hint: did you mean `RUN`?",
        ),
        (
            "FROM base AS a\nCOPY --from=b /x /x\nFROM base AS b\nCOPY --from=a /x /x\n",
            "circle",
            " | ",
        ),
        (
            "# syntax=example.com/other:1\nFROM base\n",
            "the syntax `example.com/other:1` is not known",
            "hint",
        ),
        (
            "FROM base\nRUN --mount=type=secret,id=s,required cat /run/secrets/s\n",
            "there is no secret `s`",
            "--secret id=s,src=FILE",
        ),
        ("FROM base\nENV A=${B:?must}\n", "must", " 2 | ENV"),
        (
            "FROM base\nSTOPSIGNAL nine\n",
            "`nine` is no signal",
            "Dockerfile:2:12",
        ),
    ];
    for (dockerfile, first, second) in table {
        let run = place.try_build(dockerfile, &[]);
        assert_eq!(run.code, 1, "{dockerfile}");
        assert!(
            run.stderr.contains(first) && run.stderr.contains(second),
            "{dockerfile}: {}",
            run.stderr
        );
    }
    let run = place.try_build("FROM base\n", &["--target", "none"]);
    assert!(
        run.code == 1 && run.stderr.contains("no stage has this name"),
        "{}",
        run.stderr
    );
}

#[test]
fn run_knows_heredocs_shells_and_mounts() {
    let Some(place) = Place::new() else { return };
    place.file("data/file", "from the context\n");
    let secret = place.cx.path().join("secret");
    fs::copy(place.context.join("data/file"), &secret).unwrap();
    let given = format!("id=s,src={}", secret.display());
    place.build_with(
        "FROM base AS other\nRUN mkdir /o && echo from the stage >/o/f && ln -s /o /l\n\
         FROM base\nRUN <<EOF\necho one >/1\necho two >>/1\nEOF\n\
         RUN <<EOF\n#!/bin/busybox sh\necho $0 >/2\nEOF\n\
         RUN cat <<A >/3 && cat <<'B' >>/3\n$HOME\nA\n$HOME\nB\n\
         SHELL [\"/bin/busybox\", \"sh\", \"-e\", \"-c\"]\nRUN echo $- >/4\n\
         RUN [\"/bin/sh\", \"-c\", \"echo exec >/5\"]\n\
         RUN --mount=target=/ctx cat /ctx/data/file >/6 && (echo x >/ctx/y || echo refused >>/6)\n\
         RUN --mount=from=other,source=/l/f,target=/m cat /m >/7\n\
         RUN --mount=from=other,target=/m,rw cat /m/o/f >/8 && echo changed >/m/o/f && cat /m/o/f >>/8\n\
         RUN --mount=type=tmpfs,target=/t,size=64k echo x >/t/f && grep -c ' /t tmpfs' /proc/mounts >/9\n\
         RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=TOKEN,target=/sub/dir/s cat /run/secrets/s /sub/dir/s >/dev/null && stat -c %a /run/secrets/s >/10 && test \"${TOKEN%?}\" = 'from the context'\n\
         RUN --network=none ls /sys/class/net >/11\n",
        &["--secret", &given],
    );
    assert_eq!(
        place.sh("cat /1 /2 /3"),
        "one\ntwo\n/dev/pipes/EOF\n/root\n$HOME\n"
    );
    assert!(place.sh("cat /4").contains('e'));
    assert_eq!(
        place.sh("cat /5 /6 /7 /8 /9 /10 /11"),
        "exec\nfrom the context\nrefused\nfrom the stage\nfrom the stage\nchanged\n1\n400\nlo\n"
    );
    // No mount point is left, wherever it was.
    assert_eq!(
        place.sh("ls -d /ctx /m /t /sub /run 2>/dev/null || true"),
        ""
    );
    place.assert_clean();
}

#[test]
fn cache_mount_stays_from_build_to_build() {
    let Some(place) = Place::new() else { return };
    let dockerfile = |n: u32| {
        format!(
            "FROM base AS seed\nRUN mkdir /s && echo seed >/s/f\nFROM base\nRUN --mount=type=cache,id=m,target=/m,sharing=locked echo x >>/m/log; wc -l </m/log >/out && : {n}\nRUN --mount=type=cache,target=/c,from=seed,source=/s,mode=0700,uid=7 cat /c/f >>/out; stat -c '%a %u' /c >>/out; : {n}\n"
        )
    };
    place.build(&dockerfile(1));
    place.build(&dockerfile(2));
    assert_eq!(place.sh("cat /out"), "2\nseed\n700 7\n");
    let du = place.cx.ketch(["builder", "du"]);
    assert!(
        du.stdout.contains("mount") && du.stdout.contains("Total: "),
        "{}",
        du.stdout
    );
    let pruned = place.cx.ketch(["builder", "prune", "-af"]);
    assert!(
        pruned.code == 0 && pruned.stdout.contains("Total reclaimed space"),
        "{}",
        pruned.stderr
    );
    assert_eq!(place.cx.ketch(["builder", "du"]).stdout.lines().count(), 2);
    // What the image has stays.
    assert_eq!(place.sh("head -n 1 /out"), "2\n");
    let run = place.build(&dockerfile(3));
    assert_eq!(place.sh("head -n 1 /out"), "1\n", "{}", run.stderr);
}

#[test]
fn cached_layers_outlive_their_images_until_they_are_pruned() {
    let Some(place) = Place::new() else { return };
    let dockerfile = "FROM base\nRUN echo one >/one\n";
    let layers = || -> std::collections::BTreeSet<_> {
        let entries = fs::read_dir(place.cx.path().join("root/layers")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "empty")
            .collect()
    };
    // Unpacks the base.
    place.build("FROM base\n");
    let before = layers();
    place.build(dockerfile);
    assert!(layers().len() > before.len());
    assert_eq!(place.cx.ketch(["rmi", "out"]).code, 0);
    let run = place.build(dockerfile);
    assert_eq!(steps(&run, "DONE"), 0, "{}", run.stderr);
    assert_eq!(place.cx.ketch(["rmi", "out"]).code, 0);
    assert_eq!(place.cx.ketch(["builder", "prune"]).code, 0);
    assert_eq!(layers(), before);
    let run = place.build(dockerfile);
    assert_eq!(steps(&run, "DONE"), 1, "{}", run.stderr);
}

#[test]
fn secrets_and_build_arguments_are_nowhere_on_disk() {
    let Some(place) = Place::new() else { return };
    let secret = place.cx.path().join("secret");
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own file, which nobody else reads"
    )]
    fs::write(&secret, "s3cr3t-FILE").unwrap();
    let given = format!("id=s,src={}", secret.display());
    let dockerfile = "FROM base\nARG API_TOKEN\nRUN --mount=type=secret,id=s,env=S test \"${API_TOKEN#*-}\" = ARG && test \"${S#*-}\" = FILE && test -z \"$ENGINE\"\n";
    place.file("Dockerfile", dockerfile);
    let mut command = place.cx.command();
    let output = command
        .args([
            "build",
            "-t",
            "out",
            "--build-arg",
            "API_TOKEN=s3cr3t-ARG",
            "--secret",
            &given,
        ])
        .arg(&place.context)
        .env("ENGINE", "s3cr3t-ENGINE")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("looks like a secret"), "{stderr}");
    assert!(!stderr.contains("s3cr3t"), "{stderr}");
    assert_eq!(place.files_with("s3cr3t"), Vec::<String>::new());
    let run = place.cx.path().join("run");
    let mut found = Vec::new();
    search(&run.join("containers"), b"s3cr3t", &mut found);
    assert!(found.is_empty());
    // Another value is another key, the same value the same one.
    let again =
        |value: &str| place.build_with(dockerfile, &["--build-arg", value, "--secret", &given]);
    assert_eq!(steps(&again("API_TOKEN=s3cr3t-ARG"), "DONE"), 0);
    let other = place.try_build(
        dockerfile,
        &["--build-arg", "API_TOKEN=wrong", "--secret", &given],
    );
    assert_eq!(other.code, 1);
}

#[test]
fn on_build_and_inherited_config_reach_the_child() {
    let Some(place) = Place::new() else { return };
    place.file("f", "f");
    place.build_with(
        "FROM base\nENV A=1\nENTRYPOINT [\"/bin/echo\", \"entry\"]\nCMD [\"cmd\"]\nONBUILD COPY f /onbuild\nONBUILD RUN cat /onbuild >/copied\nHEALTHCHECK --interval=5s --retries=2 CMD echo ok\n",
        &["-t", "parent"],
    );
    assert_eq!(
        place.inspect("parent")["Config"]["OnBuild"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    place.build("FROM parent\nENV B=$A$A\nRUN test \"$B\" = 11\n");
    let config = &place.inspect("out")["Config"];
    assert!(config["OnBuild"].is_null(), "{config}");
    assert_eq!(config["Healthcheck"]["Test"][1], "echo ok");
    assert_eq!(place.cx.ketch(["run", "--rm", "out"]).stdout, "entry cmd\n");
    assert_eq!(
        place
            .cx
            .ketch(["run", "--rm", "--entrypoint", "/bin/cat", "out", "/copied"])
            .stdout,
        "f"
    );
    // A new entrypoint takes the inherited command away.
    place.build("FROM parent\nENTRYPOINT [\"/bin/echo\", \"new\"]\n");
    assert_eq!(place.cx.ketch(["run", "--rm", "out"]).stdout, "new\n");
}

#[test]
fn add_unpacks_archives_and_copy_does_not() {
    let Some(place) = Place::new() else { return };
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    for (path, text) in [("x/one", "1"), ("x/two", "2")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_cksum();
        archive
            .append_data(&mut header, path, text.as_bytes())
            .unwrap();
    }
    let bytes = archive.into_inner().unwrap().finish().unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own file, which nobody else reads"
    )]
    fs::write(place.context.join("a.tar.zst"), bytes).unwrap();
    place.file("plain.txt", "p");
    place.build("FROM base\nADD a.tar.zst plain.txt /added/\nCOPY a.tar.zst /copied/\nADD --unpack=false a.tar.zst /whole\n");
    assert_eq!(place.sh("cat /added/x/one /added/x/two /added/plain.txt; ls /copied; stat -c '%u %a' /added/x/one; test -f /whole && echo file"), "12pa.tar.zst\n7 640\nfile\n");
}

#[test]
fn outputs_are_files_archives_and_ids() {
    let Some(place) = Place::new() else { return };
    place.file("f", "text");
    let dir = place.cx.path();
    let (local, tar, id, metadata) = (
        dir.join("local"),
        dir.join("out.tar"),
        dir.join("id"),
        dir.join("metadata.json"),
    );
    let dockerfile = "FROM scratch\nCOPY f /d/f\nCOPY --chmod=755 f /g\n";
    let show = |path: &Path| path.display().to_string();
    let run = place.try_build(
        dockerfile,
        &[
            "-o",
            &show(&local),
            "-o",
            &format!("type=tar,dest={}", show(&tar)),
            "--iidfile",
            &show(&id),
            "--metadata-file",
            &show(&metadata),
        ],
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(fs::read_to_string(local.join("d/f")).unwrap(), "text");
    let names: Vec<String> = tar::Archive::new(fs::File::open(&tar).unwrap())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["d/", "d/f", "g"]);
    let id = fs::read_to_string(id).unwrap();
    let metadata: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    // Only files were wanted: there is no image of it.
    assert!(
        !place
            .cx
            .ketch(["images", "-q", "--no-trunc"])
            .stdout
            .contains(&id)
    );
    let run = place.try_build(dockerfile, &["-t", "a:1", "-t", "b:2", "-q"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(place.inspect("a:1")["Id"], place.inspect("b:2")["Id"]);
    assert_eq!(run.stdout.trim(), place.inspect("a:1")["Id"]);
}

#[test]
fn context_can_be_an_archive_or_nothing() {
    let Some(place) = Place::new() else { return };
    let from_text = place.cx.ketch_with_input(
        ["build", "-t", "out", "-"],
        b"FROM base\nRUN echo alone >/f\n",
    );
    assert_eq!(from_text.code, 0, "{}", from_text.stderr);
    assert_eq!(place.sh("cat /f"), "alone\n");
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in [("Dockerfile", "FROM base\nCOPY f /f\n"), ("f", "packed\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive
            .append_data(&mut header, path, text.as_bytes())
            .unwrap();
    }
    let run = place
        .cx
        .ketch_with_input(["build", "-t", "out", "-"], &archive.into_inner().unwrap());
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(place.sh("cat /f"), "packed\n");
    place.file("f", "named\n");
    let context = format!("more={}", place.context.display());
    let run = place.cx.ketch_with_input(
        ["build", "-t", "out", "--build-context", &context, "-"],
        b"FROM base\nCOPY --from=more f /f\n",
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(place.sh("cat /f"), "named\n");
    // A stage can begin with it, as if it were an image of these files.
    let run = place.cx.ketch_with_input(
        ["build", "-t", "out", "--build-context", &context, "-"],
        b"FROM more AS files\nFROM base\nCOPY --from=files /f /g\n",
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(place.sh("cat /g"), "named\n");
}

#[test]
fn wasm_images_are_built_and_run() {
    let Some(place) = Place::new() else { return };
    let module = guest!("args.wasm");
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own file, which nobody else reads"
    )]
    fs::write(place.context.join("app.wasm"), module).unwrap();
    let dockerfile = "FROM scratch\nCOPY app.wasm /\nENTRYPOINT [\"/app.wasm\"]\n";
    place.build_with(dockerfile, &["--platform", "wasi/wasm"]);
    let run = place.cx.ketch(["run", "--rm", "out", "7"]);
    assert_eq!(run.code, 7, "{}", run.stderr);
    assert_eq!(place.inspect("out")["Architecture"], "wasm");
    let run = place.try_build(
        dockerfile,
        &[
            "--platform",
            "wasi/wasm",
            "-t",
            "artifact",
            "-o",
            "type=wasm-artifact",
        ],
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(place.cx.ketch(["run", "--rm", "artifact", "5"]).code, 5);
    // One file, an index of two platforms; and a wasm program as a step.
    place.build_with(
        "FROM scratch\nCOPY app.wasm /\nRUN [\"/app.wasm\", \"0\"]\nENTRYPOINT [\"/app.wasm\"]\n",
        &["--platform", "linux/amd64,wasi/wasm"],
    );
    let run = place
        .cx
        .ketch(["run", "--rm", "--platform", "wasi/wasm", "out", "3"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
}

#[test]
fn check_prints_findings_and_builds_nothing() {
    let Some(place) = Place::new() else { return };
    let run = place.try_build(
        "from base as Base\nRUN x \\\n\n  y\nCMD a b\n",
        &["--check"],
    );
    assert_eq!(run.code, 1);
    for rule in [
        "ConsistentInstructionCasing",
        "StageNameCasing",
        "NoEmptyContinuation",
        "JSONArgsRecommended",
    ] {
        assert!(run.stdout.contains(rule), "{rule}: {}", run.stdout);
    }
    let run = place.try_build("FROM base\nCMD [\"a\"]\n", &["--check"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (0, "Check complete, no warnings found.\n")
    );
    // Told to care, a build does.
    let run = place.try_build("# check=error=true\nFROM base\nCMD a\n", &["-t", "bad"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert_eq!(place.cx.ketch(["image", "inspect", "bad"]).code, 1);
}

#[test]
fn parallel_stages_meet_each_other() {
    let Some(place) = Place::new() else { return };
    // Each waits for the file of the other: one after the other they would wait for ever.
    let meet = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,id=meet,target=/m touch /m/{own}; n=0; until test -e /m/{other}; do sleep 0.1; n=$((n+1)); test $n -lt 600 || exit 1; done; touch /{own}\n"
        )
    };
    let dockerfile = format!(
        "FROM base AS a\n{}FROM base AS b\n{}FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        meet("a", "b"),
        meet("b", "a")
    );
    place.build(&dockerfile);
    assert_eq!(place.sh("ls /a /b"), "/a\n/b\n");
}

#[test]
fn caches_of_steps_and_mounts_go_to_another_root() {
    let Some(one) = Place::new() else { return };
    let Some(two) = Place::new() else { return };
    let (cache, mounts) = (one.cx.path().join("cache"), one.cx.path().join("mounts"));
    let (cache, mounts) = (cache.to_str().unwrap(), mounts.to_str().unwrap());
    let first = "FROM base\nRUN echo step >/step\n";
    let mount = "RUN --mount=type=cache,id=m,target=/m echo x >>/m/log; wc -l </m/log >/out\n";
    let dockerfile = format!("{first}{mount}");
    let to = format!("type=local,dest={cache},mode=max");
    one.build_with(
        &dockerfile,
        &["--cache-to", &to, "--cache-mount-export", mounts],
    );
    assert_eq!(one.sh("cat /out"), "1\n");
    let from = format!("type=local,src={cache}");
    let run = two.build_with(&dockerfile, &["--cache-from", &from]);
    assert_eq!(steps(&run, "DONE"), 0, "{}", run.stderr);
    assert_eq!(two.sh("cat /step /out"), "step\n1\n");
    let changed = format!("{dockerfile}RUN true\n").replace("echo x", "echo  x");
    let run = two.build_with(&changed, &["--cache-mount-import", mounts]);
    assert_eq!(two.sh("cat /out"), "2\n", "{}", run.stderr);
}
