//! Builds of hostile files: the host stays as it is, and nothing of it is seen. Also builds of an ordinary
//! user.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use testkit::{BUSYBOX, Need, Run, Sandbox, Subordinate, UserNamespaces};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

struct Place {
    cx: Sandbox,
    context: PathBuf,
    /// A directory of the host that no build may see or change.
    canary: PathBuf,
}

impl Place {
    fn new() -> Option<Self> {
        let place = Self::of(Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?);
        place.base("1");
        Some(place)
    }

    fn of(cx: Sandbox) -> Self {
        let (context, canary) = (cx.path().join("context"), cx.path().join("canary"));
        for dir in [&context, &canary] {
            fs::create_dir(dir).unwrap();
        }
        let place = Self {
            cx,
            context,
            canary,
        };
        write(&place.canary.join("stub"), "");
        write(&place.canary.join("word"), "canary-content");
        place
    }

    fn base(&self, version: &str) {
        let busybox = fs::read(BUSYBOX).unwrap();
        let mut files = vec![("version".to_owned(), version.as_bytes(), 0o644)];
        for name in [
            "sh", "cat", "echo", "ls", "ln", "rm", "mkdir", "mv", "touch", "id", "stat", "test",
            "chown",
        ] {
            files.push((format!("bin/{name}"), busybox.as_slice(), 0o755));
        }
        let files: Vec<_> = files
            .iter()
            .map(|(path, bytes, mode)| (path.as_str(), *bytes, *mode))
            .collect();
        self.cx.image("base", &files, &[]);
    }

    fn build(&self, dockerfile: &str, args: &[&str]) -> Run {
        write(&self.context.join("Dockerfile"), dockerfile);
        let context = self.context.to_str().unwrap();
        let mut all = vec!["build", "--progress=plain", "-t", "out"];
        all.extend(args);
        all.push(context);
        self.cx.ketch(all)
    }

    fn assert_untouched(&self) {
        assert_eq!(
            fs::read_to_string(self.canary.join("word")).unwrap(),
            "canary-content"
        );
        let names: Vec<_> = fs::read_dir(&self.canary)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file, which nobody else reads"
)]
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test is about the moment, not about power cuts"
)]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

#[test]
fn sources_of_mounts_and_copies_stay_in_their_trees() {
    let Some(place) = Place::new() else { return };
    let canary = place.canary.display().to_string();
    symlink(&place.canary, place.context.join("link")).unwrap();
    symlink("../canary", place.context.join("relative")).unwrap();
    let refused = [
        "FROM base\nCOPY link/word /\n".to_owned(),
        "FROM base\nCOPY relative/word /\n".to_owned(),
        "FROM base\nCOPY ../canary/word /\n".to_owned(),
        format!("FROM base\nCOPY {canary}/word /\n"),
        "FROM base\nRUN --mount=source=/link,target=/m cat /m/word\n".to_owned(),
        "FROM base\nRUN --mount=source=/../canary,target=/m cat /m/word\n".to_owned(),
        format!(
            "FROM base AS evil\nRUN ln -s {canary} /l && ln -s / /r\nFROM base\nRUN --mount=from=evil,source=/l,target=/m cat /m/word\n"
        ),
        format!(
            "FROM base AS evil\nRUN ln -s / /r\nFROM base\nRUN --mount=from=evil,source=/r{canary},target=/m cat /m/word\n"
        ),
        format!(
            "FROM base AS evil\nRUN ln -s {canary} /l\nFROM base\nCOPY --from=evil /l/word /\n"
        ),
        format!(
            "FROM base AS evil\nRUN ln -s {canary} /l\nFROM base\nRUN --mount=type=cache,from=evil,source=/l,target=/m cat /m/word\n"
        ),
    ];
    for dockerfile in refused {
        let run = place.build(&dockerfile, &[]);
        assert_eq!(run.code, 1, "{dockerfile}");
        assert!(
            !run.stderr.contains("canary-content")
                && !run.stderr.contains("ended with exit code 0"),
            "{dockerfile}: {}",
            run.stderr
        );
    }
    // A link that is copied is a link and leads nowhere.
    let run = place.build(
        "FROM base\nCOPY . /all\nRUN test ! -e /all/link/word\n",
        &[],
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    place.assert_untouched();
}

/// S36, S37: while builds run, somebody swaps a directory of the context, and another stage one of a
/// shared cache, for a link that leads to the host's own files.
#[test]
fn swapped_directories_show_nothing_of_the_host() {
    let Some(place) = Place::new() else { return };
    let context = place.context.clone();
    fs::create_dir(context.join("dir")).unwrap();
    write(&context.join("dir/word"), "own");
    symlink(&place.canary, context.join("link")).unwrap();
    let dockerfile = format!(
        "FROM base AS racer\nRUN --mount=type=cache,id=race,target=/m n=0; while test $n -lt 300; do rm -rf /m/sub; ln -s {canary} /m/sub; rm -f /m/sub; mkdir /m/sub; n=$((n+1)); done\n\
         FROM base AS victim\nCOPY dir /copied\nRUN --mount=type=bind,source=dir,target=/bound cat /bound/word >/bound-word\n\
         RUN --mount=type=cache,id=race,source=sub,target=/s n=0; while test $n -lt 50; do cat /s/word 2>/dev/null; touch /s/made; n=$((n+1)); done\n\
         FROM base\nCOPY --from=racer /version /racer\nCOPY --from=victim /copied /copied\nCOPY --from=victim /bound-word /bound-word\n",
        canary = place.canary.display()
    );
    let (dir, link, spare) = (
        context.join("dir"),
        context.join("link"),
        context.join("spare"),
    );
    let mut swaps = 0;
    let swap = || {
        for (from, to) in [(&dir, &spare), (&link, &dir), (&dir, &link), (&spare, &dir)] {
            rename(from, to);
        }
        swaps += 1;
    };
    let mut ended = [0, 0];
    testkit::race(swap, || {
        for _ in 0..12 {
            let run = place.build(&dockerfile, &["--no-cache"]);
            assert!(!run.stderr.contains("canary-content"), "{}", run.stderr);
            ended[usize::from(run.code == 0)] += 1;
            if run.code == 0 {
                let shown = place.cx.ketch([
                    "run",
                    "--rm",
                    "out",
                    "/bin/cat",
                    "/copied/word",
                    "/bound-word",
                ]);
                assert_eq!(shown.stdout, "ownown", "{}", shown.stderr);
            }
        }
    });
    assert!(swaps > 12, "{ended:?}");
    place.assert_untouched();
}

#[test]
fn targets_through_links_stay_in_the_container() {
    let Some(place) = Place::new() else { return };
    let canary = place.canary.display().to_string();
    let run = place.build(
        &format!(
            "FROM base\nRUN mkdir -p {canary} && ln -s {canary} /evil && ln -s ../../../../../../..{canary} /evil2\n\
             RUN --mount=type=cache,target=/evil/c touch /evil/c/x\n\
             RUN --mount=type=tmpfs,target=/evil2/t touch /evil2/t/x\nRUN test ! -e /evil/word && test ! -e /evil2/word\n"
        ),
        &[],
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    // The parent of a mount point is replaced by a link before the step ends.
    let run = place.build(
        &format!("FROM base\nRUN --mount=type=tmpfs,target=/sub/stub mkdir /other && mv /sub /other/ 2>/dev/null; ln -s {canary} /sub2; true\nRUN --mount=type=secret,id=x,target=/a/stub rm -rf /a 2>/dev/null; ln -s {canary} /a 2>/dev/null; true\n"),
        &[],
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    // A COPY through a link goes where the link leads inside the image.
    let run = place.build(&format!("FROM base\nRUN ln -s {canary} /evil\nCOPY Dockerfile /evil/word\nADD Dockerfile /evil/stub\nRUN cat {canary}/word >/dev/null\n"), &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    place.assert_untouched();
}

#[test]
fn base_of_the_same_name_and_other_content_is_no_hit() {
    let Some(place) = Place::new() else { return };
    let dockerfile = "FROM base\nRUN cat /version >/seen\nHEALTHCHECK CMD true\n";
    assert_eq!(place.build(dockerfile, &[]).code, 0);
    place.base("2");
    assert_eq!(place.build(dockerfile, &[]).code, 0);
    assert_eq!(
        place
            .cx
            .ketch(["run", "--rm", "out", "/bin/cat", "/seen"])
            .stdout,
        "2"
    );
    // S40: what makes no layer is no hit either, and a history that says the same proves nothing.
    let id = |dockerfile: &str| {
        let run = place.build(dockerfile, &[]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    };
    let image = id(dockerfile);
    assert_ne!(
        image,
        id("FROM base\nRUN cat /version >/seen\nHEALTHCHECK CMD false\n")
    );
    assert_ne!(
        image,
        id("FROM base\nRUN cat /version >/seen\nONBUILD RUN true\n")
    );
    assert_eq!(image, id(dockerfile));
    place.cx.image("forged", &[("version", b"3", 0o644)], &[]);
    let forged = id("FROM forged\nCOPY --from=base /bin /bin\n");
    assert_eq!(place.cx.ketch(["tag", forged.trim(), "base"]).code, 0);
    assert_eq!(place.build(dockerfile, &[]).code, 0);
    assert_eq!(
        place
            .cx
            .ketch(["run", "--rm", "out", "/bin/cat", "/seen"])
            .stdout,
        "3"
    );
    // A step that says another thing is another step.
    let run = place.build("FROM base\nUSER 7\nRUN id -u >/tmp-seen || true\n", &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("DONE"));
}

#[test]
fn ordinary_user_builds_with_many_ids_and_with_one() {
    for subordinate in [Subordinate::Ids, Subordinate::None] {
        let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Busybox, Need::IdMapPrograms])
        else {
            return;
        };
        let place = Place::of(cx.as_user(subordinate, UserNamespaces::Allowed));
        place.base("1");
        write(&place.context.join("f"), "data\n");
        let owner = match subordinate {
            Subordinate::Ids => "RUN chown 7:8 /w/f\nCOPY --chown=9 f /w/g\n",
            Subordinate::None => "",
        };
        let dockerfile = format!(
            "FROM base AS one\nRUN echo made >/made && rm /version\nFROM base\nWORKDIR /w\nCOPY f .\nCOPY --from=one /made .\nRUN mkdir d && mv f d/ && mv d/f f && test -f /version\n{owner}CMD [\"/bin/cat\", \"f\", \"made\"]\n"
        );
        let run = place.build(&dockerfile, &["--network=none"]);
        assert_eq!(run.code, 0, "{subordinate:?}: {}", run.stderr);
        assert_eq!(
            place
                .cx
                .ketch(["run", "--rm", "--network=none", "out"])
                .stdout,
            "data\nmade\n"
        );
        if subordinate == Subordinate::Ids {
            let run = place.cx.ketch([
                "run",
                "--rm",
                "--network=none",
                "out",
                "/bin/stat",
                "-c",
                "%u %g",
                "/w/f",
                "/w/g",
            ]);
            assert_eq!(run.stdout, "7 8\n9 9\n", "{}", run.stderr);
        }
        let again = place.build(&dockerfile, &["--network=none"]);
        assert!(!again.stderr.contains("DONE"), "{}", again.stderr);
    }
}
