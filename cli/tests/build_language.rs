//! What Dockerfiles say and mean: cases in which builders are known to differ.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use testkit::{BUSYBOX, Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// A sandbox with the image `base`, which is busybox, and a context.
struct Place {
    cx: Sandbox,
    context: PathBuf,
}

impl Place {
    fn new() -> Option<Self> {
        let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
        let context = cx.path().join("context");
        fs::create_dir(&context).unwrap();
        let busybox = fs::read(BUSYBOX).unwrap();
        let names = [
            "busybox", "sh", "awk", "cat", "echo", "env", "grep", "id", "ls", "mkdir", "mount",
            "readlink", "rm", "sort", "stat", "test", "touch", "tr", "wc",
        ];
        let mut files: Vec<(String, &[u8], u32)> = names
            .iter()
            .map(|name| (format!("bin/{name}"), busybox.as_slice(), 0o755))
            .collect();
        let passwd = b"root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
        files.push(("etc/passwd".to_owned(), passwd, 0o644));
        let files: Vec<_> = files
            .iter()
            .map(|(path, bytes, mode)| (path.as_str(), *bytes, *mode))
            .collect();
        cx.image("base", &files, &[]);
        Some(Self { cx, context })
    }

    fn file(&self, path: &str, bytes: &[u8]) {
        let path = self.context.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, bytes);
    }

    fn args<'a>(&'a self, dockerfile: &str, args: &[&'a str]) -> Vec<&'a str> {
        self.file("Dockerfile", dockerfile.as_bytes());
        let mut all = vec!["build", "--progress=plain", "-t", "out"];
        if !args.iter().any(|arg| arg.starts_with("--network")) {
            all.push("--network=none");
        }
        all.extend(args);
        all.push(self.context.to_str().unwrap());
        all
    }

    fn try_build(&self, dockerfile: &str, args: &[&str]) -> Run {
        self.cx.ketch(self.args(dockerfile, args))
    }

    fn build(&self, dockerfile: &str, args: &[&str]) -> Run {
        let run = self.try_build(dockerfile, args);
        assert_eq!(run.code, 0, "{dockerfile}\n{}", run.stderr);
        run
    }

    /// A build that fails, at this place and for this reason.
    fn fails(&self, dockerfile: &str, args: &[&str], expected: &[&str]) {
        let run = self.try_build(dockerfile, args);
        assert_eq!(run.code, 1, "{dockerfile}\n{}", run.stderr);
        for text in expected {
            assert!(run.stderr.contains(text), "{text}: {}", run.stderr);
        }
    }

    /// What a shell line prints in a container of `out`.
    fn sh(&self, line: &str) -> String {
        self.run(&[], line)
    }

    fn run(&self, options: &[&str], line: &str) -> String {
        let mut args = vec!["run", "--rm"];
        if !options.iter().any(|option| option.contains("network")) {
            args.push("--network=none");
        }
        args.extend(options);
        args.extend(["out", "/bin/sh", "-c", line]);
        let run = self.cx.ketch(args);
        assert_eq!(run.code, 0, "{line}: {}", run.stderr);
        run.stdout
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file, which nobody else reads"
)]
fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

fn done(run: &Run) -> usize {
    let lines = run.stderr.lines();
    lines
        .filter(|line| line.starts_with('#') && line.contains("DONE"))
        .count()
}

#[test]
fn step_leaves_its_walls_only_when_that_is_allowed() {
    let Some(place) = Place::new() else { return };
    let look = "grep -e CapBnd -e Seccomp: /proc/self/status; ls /dev | sort; test -c /proc/kcore && echo masked; touch /proc/sys/kernel/hostname && echo sys; true";
    let dockerfile = format!(
        "FROM base\nRUN touch /first\nRUN \\\n  --security=insecure ({look}) >/insecure && mkdir /t && mount -t tmpfs t /t\nRUN --security=sandbox ({look}) >/sandbox\nRUN ({look}) >/usual && test ! -e /t/x\n"
    );
    let run = place.try_build(&dockerfile, &[]);
    assert_eq!((run.code, done(&run)), (1, 0), "{}", run.stderr);
    for text in [
        "Dockerfile:4:3: `--security=insecure` is not allowed",
        " 4 |   --security=insecure",
        "hint: if you trust the file, build with `--allow security.insecure`",
    ] {
        assert!(run.stderr.contains(text), "{text}: {}", run.stderr);
    }
    // What is not needed may say what it wants.
    let unneeded = format!("{dockerfile}FROM base\nRUN touch /x\n");
    place.build(&unneeded, &[]);
    place.build(&dockerfile, &["--allow", "security.insecure"]);
    let kept = place.sh("cat /insecure");
    let privileged = place.run(&["--privileged"], look);
    assert_eq!(kept, privileged);
    let (sandbox, usual) = (place.sh("cat /sandbox"), place.sh("cat /usual"));
    assert_eq!(sandbox, usual);
    assert_eq!(sandbox, place.sh(look));
    assert_ne!(kept, usual);
    assert!(kept.contains("Seccomp:\t0"), "{kept}");
    // What was allowed once is in the cache, and still not allowed.
    let run = place.try_build(&dockerfile, &[]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    // A trigger of somebody else's image is no way around.
    place.build(
        "FROM base\nONBUILD RUN --security=insecure touch /x\n",
        &["-t", "trap"],
    );
    place.fails(
        "FROM trap\n",
        &[],
        &["ONBUILD of trap:1:5: `--security=insecure` is not allowed"],
    );
    let run = place.try_build("FROM base\n", &["--allow", "everything"]);
    assert!(
        run.code == 125 && run.stderr.contains("cannot use --allow `everything`"),
        "{}",
        run.stderr
    );
}

#[test]
fn step_has_the_hosts_network_only_when_that_is_allowed() {
    let Some(place) = Place::new() else { return };
    let dockerfile = "FROM base\nRUN --network=host readlink /proc/self/ns/net >/net\nRUN readlink /proc/self/ns/net >/own\n";
    place.fails(
        dockerfile,
        &[],
        &[
            "Dockerfile:2:5: `--network=host` is not allowed",
            "--allow network.host",
        ],
    );
    place.build(dockerfile, &["--allow", "network.host"]);
    let host = place.run(&["--network=host"], "readlink /proc/self/ns/net");
    assert_eq!(place.sh("cat /net"), host);
    assert_ne!(place.sh("cat /own"), host);
    // Whoever gives it to all steps has allowed it.
    place.build(dockerfile, &["--network=host", "--no-cache"]);
    assert_eq!(place.sh("cat /net /own"), host.repeat(2));
}

#[test]
fn devices_are_asked_for_by_name_and_allowed_by_name() {
    let Some(place) = Place::new() else { return };
    let dir = place.cx.path().join("cdi");
    fs::create_dir(&dir).unwrap();
    write(
        &dir.join("v.json"),
        br#"{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":{"env":["INJECTED=yes"],"deviceNodes":[{"path":"/dev/mine","hostPath":"/dev/null"}]}}]}"#,
    );
    let build = |dockerfile: &str, args: &[&str]| {
        let mut command = place.cx.command();
        command
            .args(place.args(dockerfile, args))
            .env("KETCH_CDI_SPEC_DIRS", &dir);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    };
    let dockerfile =
        "FROM base\nRUN --device=v.com/c=d,required test -c /dev/mine && echo $INJECTED >/f\n";
    let (code, stderr) = build(dockerfile, &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("Dockerfile:2:5: `--device=v.com/c=d` is not allowed")
            && stderr.contains("--allow device=v.com/c=d"),
        "{stderr}"
    );
    for allowed in ["device", "device=v.com/c=d"] {
        let (code, stderr) = build(dockerfile, &["--allow", allowed, "--no-cache"]);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(place.sh("cat /f"), "yes\n");
    }
    let (code, stderr) = build(dockerfile, &["--allow", "device=v.com/c=other"]);
    assert_eq!(code, Some(1), "{stderr}");
    // One that is not there.
    let absent = "FROM base\nRUN --device=v.com/c=none,required touch /f\n";
    let (code, stderr) = build(absent, &["--allow", "device"]);
    assert!(
        code == Some(1) && stderr.contains("v.com/c=none"),
        "{stderr}"
    );
    let optional = "FROM base\nRUN --device=v.com/c=none touch /f\n";
    let (code, stderr) = build(optional, &["--allow", "device"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("no CDI specification has the device `v.com/c=none`"),
        "{stderr}"
    );
}

#[test]
fn variables_are_replaced_in_all_options_of_mounts() {
    let Some(place) = Place::new() else { return };
    place.file("f", b"file\n");
    place.build(
        "FROM base\nARG KIND=cache\nENV ID=a MODE=0750 OWNER=7 FILE=f\n\
         RUN --mount=type=$KIND,id=$ID,target=/one,mode=$MODE,uid=${OWNER},sharing=${HOW:-locked} stat -c '%a %u' /one >/look && echo x >/one/x\n\
         RUN --mount=type=cache,id=a,target=/two cat /two/x >>/look\n\
         RUN --mount=type=${NONE:-bind},source=$FILE,target=/three,readonly=${RO:-true} cat /three >>/look\n",
        &[],
    );
    assert_eq!(place.sh("cat /look"), "750 7\nx\nfile\n");
    for (option, why) in [
        ("type=$WHAT,target=/x", "`often` is no type of mount"),
        ("type=cache,target=/x,sharing=$WHAT", "`sharing=often`"),
        ("type=tmpfs,target=/x,size=$WHAT", "`size=often` is no size"),
        ("type=tmpfs,target=/x,mode=$WHAT", "no option `mode`"),
        ("target=/x,typ=cache", "`typ=cache` is no option of a mount"),
    ] {
        let dockerfile = format!("FROM base\nENV WHAT=often\nRUN --mount={option} true\n");
        place.fails(&dockerfile, &[], &["Dockerfile:3:5: ", why]);
    }
    place.fails(
        "FROM base AS other\nFROM base\nENV S=other\nRUN --mount=from=$S,target=/x true\n",
        &[],
        &["Dockerfile:4:18: variables are not replaced in `from`"],
    );
}

#[test]
fn stages_arguments_and_ports_are_read_as_elsewhere() {
    let Some(place) = Place::new() else { return };
    place.build(
        "ARG A=\"foo bar\" B=b\nARG C=\"$B-c\"\nFROM ${B}ase AS Middle\nARG C A D=\"1 2\" TARGETSTAGE\nARG EMPTY=\nARG NONE\n\
         RUN echo \"$A:$C:$D:$TARGETSTAGE\" >/args && env | grep -c -e '^EMPTY=$' -e ^NONE >>/args\n\
         ENV LEGACY \"v=${UNSET:-def val}\" \nENV TRIMMED \"${LEGACY%%e*}\"\nRUN echo \"$LEGACY,$TRIMMED\" >>/args\n\
         FROM middle AS Last\nARG PORTS=\"3000 4000/udp\"\nEXPOSE $PORTS $NOTHING\nEXPOSE 5000\n",
        &[],
    );
    assert_eq!(
        place.sh("cat /args"),
        "foo bar:b-c:1 2:last\n1\nv=def val,v=d\n"
    );
    let inspected = place.cx.ketch(["image", "inspect", "out"]).stdout;
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let ports = inspected[0]["Config"]["ExposedPorts"].as_object().unwrap();
    let ports: Vec<&String> = ports.keys().collect();
    assert_eq!(ports, ["3000/tcp", "4000/udp", "5000/tcp"]);
    // A stage without a name, and one that was asked for.
    let dockerfile = "FROM base AS one\nARG TARGETSTAGE\nRUN echo $TARGETSTAGE >/stage\nFROM one\n";
    place.build(dockerfile, &[]);
    assert_eq!(place.sh("cat /stage"), "default\n");
    place.build(dockerfile, &["--target", "one"]);
    assert_eq!(place.sh("cat /stage"), "one\n");
    // Proxies are there for programs of either taste, and nowhere else.
    let dockerfile = "FROM base\nRUN echo $HTTP_PROXY $https_proxy >/proxies\n";
    let args = [
        "--build-arg",
        "http_proxy=h",
        "--build-arg",
        "HTTPS_PROXY=s",
    ];
    place.build(dockerfile, &args);
    assert_eq!(
        place.sh("cat /proxies; env | grep -ci proxy || true"),
        "h s\n0\n"
    );
    assert_eq!(done(&place.build(dockerfile, &[])), 0);
    // The time may stand in the file; who builds knows better.
    let dockerfile = "ARG SOURCE_DATE_EPOCH=86400\nFROM base\nRUN touch /f\n";
    place.build(dockerfile, &[]);
    assert_eq!(place.sh("stat -c %Y /f"), "86400\n");
    place.build(dockerfile, &["--build-arg", "SOURCE_DATE_EPOCH=3600"]);
    assert_eq!(place.sh("stat -c %Y /f"), "3600\n");
    place.fails(
        "ARG SOURCE_DATE_EPOCH=context\nFROM base\n",
        &[],
        &["Dockerfile:1:23: `SOURCE_DATE_EPOCH` is `context`"],
    );
}

#[test]
fn arguments_for_the_builder_are_followed_or_told_of() {
    let Some(place) = Place::new() else { return };
    let dockerfile = "FROM base\nRUN busybox hostname >/name; cat /etc/hostname >>/name; echo $HOSTNAME >>/name\nRUN --mount=type=cache,id=c,target=/c echo x >>/c/x; wc -l </c/x >/count\n";
    let names = [
        "--build-arg",
        "BUILDKIT_SANDBOX_HOSTNAME=there",
        "--build-arg",
        "BUILDKIT_CACHE_MOUNT_NS=n",
    ];
    place.build(dockerfile, &[]);
    place.build(dockerfile, &["--no-cache"]);
    assert_eq!(place.sh("cat /name /count"), "build\nbuild\nbuild\n2\n");
    place.build(dockerfile, &names);
    assert_eq!(place.sh("cat /name /count"), "there\nthere\nthere\n1\n");
    let run = place.build("FROM base\n", &["--build-arg", "BUILDKIT_NONE=1"]);
    assert!(
        run.stderr
            .contains("no ARG takes the build argument BUILDKIT_NONE"),
        "{}",
        run.stderr
    );
    let metadata = place.cx.path().join("metadata.json");
    let wanted = ["--metadata-file", metadata.to_str().unwrap()];
    let index = ["--build-arg", "BUILDKIT_MULTI_PLATFORM=1"];
    place.build("FROM base\n", &[wanted, index].concat());
    let metadata = fs::read_to_string(metadata).unwrap();
    assert!(metadata.contains("image.index.v1+json"), "{metadata}");
    let syntax = ["--build-arg", "BUILDKIT_SYNTAX=example.com/other:1"];
    place.fails(
        "FROM base\n",
        &syntax,
        &["the syntax `example.com/other:1` is not known"],
    );
    let check = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"];
    place.fails(
        "FROM base\nCMD x\n",
        &check,
        &["the check found 1 problems"],
    );
}

#[test]
fn heredocs_mean_what_they_mean_elsewhere() {
    let Some(place) = Place::new() else { return };
    place.build(
        "FROM base\nARG name=world\nWORKDIR /d\n\
         COPY <<EOF one\n\"q\" '$name' \\$name \\\\ a\\.b\nEOF\n\
         COPY <<\"EOF\" two\n\\\\ \\$name ${name}\nEOF\n\
         COPY --chmod=0640 --chown=me <<A <<-B /d/sub/\na\nA\n\t\tb\n\tB\n\
         RUN << EOF\necho loose $(( 1 << 2 )) >three\nEOF\n\
         RUN <<EOF 3<<IN1 4<<IN2 awk -f -\nBEGIN {\n while ((getline l < \"/proc/self/fd/3\") > 0) print tolower(l) >\"four\"\n while ((getline l < \"/proc/self/fd/4\") > 0) print toupper(l) >\"four\"\n}\nEOF\nhello WORLD\nIN1\nHELLO world\nIN2\n\
         RUN cat <<X | tr a-z A-Z >five; \\\n  cat <<Y >>five\nfirst\nX\nsecond\nY\n\
         RUN <<-EOF\n\t#!/bin/awk -f\n\tBEGIN { print \"awk\" > \"six\" }\n\tEOF\n\
         RUN <<'EOF' sh >seven\nname=other\necho $name\nEOF\n\
         SHELL [\"/bin/awk\"]\nRUN <<EOF\nBEGIN { print \"shell\" > \"/d/eight\" }\nEOF\n",
        &[],
    );
    assert_eq!(
        place.sh(
            "cd /d; cat one two sub/A sub/B three four five six seven eight; stat -c '%a %u' sub/A"
        ),
        "\"q\" 'world' $name \\ a.b\n\\\\ \\$name ${name}\na\nb\nloose 4\nhello world\nHELLO WORLD\nFIRST\nsecond\nawk\nother\nshell\n640 1000\n"
    );
    place.fails(
        "FROM base\nRUN <<EOF\nx\n",
        &[],
        &["Dockerfile:2:5: the heredoc `EOF` is not ended"],
    );
}

#[test]
fn copies_make_and_keep_directories_as_elsewhere() {
    let Some(place) = Place::new() else { return };
    for path in ["f", "dir/a/b.txt", "dir/a/c.bin", "dir/d.txt"] {
        place.file(path, path.as_bytes());
    }
    symlink("f", place.context.join("l1")).unwrap();
    symlink("l1", place.context.join("l2")).unwrap();
    symlink("dir/a", place.context.join("way")).unwrap();
    place.build(
        "FROM base AS source\nRUN mkdir -p /s/sub && echo n >/s/sub/n && busybox chown 100:200 /s && busybox chown 101:201 /s/sub && busybox chown 102:202 /s/sub/n\n\
         FROM base\nRUN mkdir -p /old/sub && busybox chown 500:600 /old /old/sub && mkdir /var && busybox ln -s /run/x /var/x\n\
         COPY --from=source /s /new\nCOPY --from=source /s/. /old\nCOPY --from=source --chown=7:8 /s /owned/deep\n\
         COPY --chmod=777 f /p/f\nCOPY --chmod=770 f /p/q/f\nCOPY --chmod=u=rw,go= f /letters/f\n\
         COPY l* /links/\nCOPY way/b.txt /through\nCOPY d*r/*/b.txt /globbed\n\
         WORKDIR /cwd\nENV NOTHING=\nCOPY f $NOTHING\nCOPY f ../up/\nCOPY --link f .\n\
         COPY --parents dir/./a/*.txt /pivot/\nCOPY --parents dir/none* /none/\nCOPY --exclude=*/*.bin dir /excluded\nCOPY f /var/x/y/\n",
        &[],
    );
    let look = |paths: &str| place.sh(&format!("stat -c '%n %u %g %a' {paths}"));
    assert_eq!(
        look("/new /new/sub /new/sub/n /old /old/sub /old/sub/n"),
        "/new 0 0 755\n/new/sub 101 201 755\n/new/sub/n 102 202 644\n/old 500 600 755\n/old/sub 101 201 755\n/old/sub/n 102 202 644\n"
    );
    assert_eq!(
        look("/owned /owned/deep/sub"),
        "/owned 7 8 755\n/owned/deep/sub 7 8 755\n"
    );
    assert_eq!(
        look("/p /p/f /p/q /letters /letters/f"),
        "/p 0 0 777\n/p/f 0 0 777\n/p/q 0 0 770\n/letters 0 0 755\n/letters/f 0 0 600\n"
    );
    assert_eq!(
        place.sh(
            "cat /links/l1 /links/l2 /through /globbed /cwd/f /up/f; test -L /links/l2 || echo file"
        ),
        "ffdir/a/b.txtdir/a/b.txtfffile\n"
    );
    assert_eq!(
        place.sh("ls /pivot /pivot/a /none /excluded /excluded/a; cat /run/x/y/f"),
        "/excluded:\na\nd.txt\n\n/excluded/a:\nb.txt\n\n/none:\n\n/pivot:\na\n\n/pivot/a:\nb.txt\nf"
    );
}

#[test]
fn archives_go_through_links_of_the_image() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let Some(place) = Place::new() else { return };
    let pack = |name: &str, entries: &[(&str, tar::EntryType, &str)]| {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            let is_file = *kind == Regular;
            header.set_size(if is_file { text.len() as u64 } else { 0 });
            match is_file {
                true => {
                    header.set_cksum();
                    archive
                        .append_data(&mut header, path, text.as_bytes())
                        .unwrap();
                }
                false if text.is_empty() => {
                    header.set_cksum();
                    archive.append_data(&mut header, path, &b""[..]).unwrap();
                }
                false => archive.append_link(&mut header, path, text).unwrap(),
            }
        }
        place.file(name, &archive.into_inner().unwrap());
    };
    pack(
        "root.tar",
        &[("run", Directory, ""), ("var/run", Symlink, "/run")],
    );
    pack(
        "load.tar",
        &[
            ("var/run/a", Directory, ""),
            ("var/run/a/one", Regular, "1"),
            ("var/run/a/two", Link, "var/run/a/one"),
        ],
    );
    place.build(
        "FROM base\nADD root.tar /\nADD load.tar /\nADD --chown=7:8 load.tar /owned/\nADD l*.tar /both\n",
        &[],
    );
    assert_eq!(
        place.sh("cat /run/a/one /run/a/two /owned/var/run/a/two /both/var/run/a/one; stat -c %h /run/a/one; readlink /var/run; stat -c '%u %g' /owned"),
        "11112\n/run\n7 8\n"
    );
    // A link to what the archive does not have would be another file than elsewhere, or none.
    pack("bad.tar", &[("sh", Link, "bin/sh")]);
    place.fails(
        "FROM base\nADD bad.tar /\n",
        &[],
        &["Dockerfile:2:1: `/sh` is a hard link to `/bin/sh`, which is not among the files"],
    );
}

#[test]
fn triggers_run_once_and_reach_what_nobody_else_needs() {
    let Some(place) = Place::new() else { return };
    place.build(
        "FROM base AS source\nRUN echo s >/s\nFROM base AS trap\nONBUILD COPY --from=source /s /got\nONBUILD RUN echo once >>/times\n\
         FROM trap AS middle\nRUN cat /got >/seen\nFROM middle\nRUN cat /times >>/seen\n",
        &[],
    );
    assert_eq!(place.sh("cat /seen /times"), "s\nonce\nonce\n");
}

#[test]
fn limits_of_steps_are_those_that_are_asked_for() {
    let Some(place) = Place::new() else { return };
    place.build(
        "FROM base\nRUN ulimit -n >/limits; grep -c ' /dev/shm .*size=1024k' /proc/mounts >>/limits\n",
        &["--ulimit", "nofile=1062:2000", "--shm-size", "1m"],
    );
    assert_eq!(place.sh("cat /limits"), "1062\n1\n");
    let run = place.try_build("FROM base\n", &["--ulimit", "nofiles=1"]);
    assert!(
        run.code == 125 && run.stderr.contains("there is no limit of this name"),
        "{}",
        run.stderr
    );
}
