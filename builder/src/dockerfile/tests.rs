use super::*;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse("Dockerfile", text).unwrap()
}

fn fails(text: &str) -> String {
    Dockerfile::parse("Dockerfile", text)
        .unwrap_err()
        .to_string()
}

#[test]
fn directives_end_with_the_first_other_line() {
    let file = parse(
        "# syntax=docker/dockerfile:1\n# Escape = `\n#check=skip=A,B;error=true\nFROM a\n# escape=\\\n",
    );
    assert_eq!(file.escape, '`');
    assert_eq!(file.syntax.as_deref(), Some("docker/dockerfile:1"));
    assert_eq!(file.check.skip, ["A", "B"]);
    assert!(file.check.error);
    assert_eq!(parse("# hello\n# escape=`\nFROM a\n").escape, '\\');
    assert_eq!(parse("\n# escape=`\nFROM a\n").escape, '\\');
    assert!(fails("# escape=`\n# escape=`\nFROM a\n").contains("Dockerfile:2:"));
}

#[test]
fn continued_lines_lose_comments_and_empty_lines() {
    let file = parse("FROM a\nRUN one \\\n  # no\n\n  two \\\n  three\nUSER x\n");
    let Kind::Run(run) = &file.instructions[1].kind else {
        panic!()
    };
    assert_eq!(
        run.command,
        CommandLine::Shell("one   two   three".to_owned())
    );
    assert_eq!(
        (file.instructions[1].line, file.instructions[1].end),
        (2, 6)
    );
    assert_eq!(file.empty_continuations, [4]);
    assert_eq!(file.instructions[2].line, 7);
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_no_text() {
    let file = parse("\u{feff}FROM a\r\nRUN x \\\r\n y\r\n");
    let Kind::Run(run) = &file.instructions[1].kind else {
        panic!()
    };
    assert_eq!(run.command, CommandLine::Shell("x  y".to_owned()));
}

#[test]
fn heredocs_take_the_lines_up_to_their_names() {
    let file = parse(
        "FROM a\nRUN <<EOF cat <<-'B'\nx\n# y\nEOF\n\t\tz\n\tB\nCOPY <<f.txt /f\n$A\nf.txt\nUSER u\n",
    );
    let Kind::Run(run) = &file.instructions[1].kind else {
        panic!()
    };
    assert_eq!(run.heredocs.len(), 2);
    assert_eq!(run.heredocs[0].content, "x\n# y\n");
    assert_eq!(
        (run.heredocs[1].content.as_str(), run.heredocs[1].expand),
        ("z\n", false)
    );
    let Kind::Copy(copy) = &file.instructions[2].kind else {
        panic!()
    };
    assert!(matches!(&copy.sources[0], Source::Inline(doc) if doc.content == "$A\n" && doc.expand));
    assert!(matches!(file.instructions[3].kind, Kind::User(_)));
    let error = fails("FROM a\nRUN <<EOF\nx\n");
    assert!(
        error.starts_with("Dockerfile:2:5: the heredoc `EOF` is not ended"),
        "{error}"
    );
    // No heredoc for us: shifts, a here-string.
    for text in [
        "FROM a\nRUN echo $((1<<2)) <<<x\n",
        "FROM a\nRUN echo $(( 1 << 2 ))\n",
    ] {
        assert_eq!(parse(text).instructions.len(), 2, "{text}");
    }
    let file = parse("FROM a\nRUN << EOF\nx\nEOF\nRUN cat <<- 'B' >f\n\ty\n\tB\n");
    let contents: Vec<_> = file
        .instructions
        .iter()
        .filter_map(|instruction| match &instruction.kind {
            Kind::Run(run) => Some((run.heredocs[0].content.as_str(), run.heredocs[0].expand)),
            _ => None,
        })
        .collect();
    assert_eq!(contents, [("x\n", true), ("y\n", false)]);
}

#[test]
fn forms_of_commands() {
    let file = parse(
        "FROM a\nCMD [\"a\", \"b c\"]\nCMD [a]\nENTRYPOINT x y\nSHELL [\"/bin/bash\",\"-c\"]\nCMD\n",
    );
    let kinds: Vec<_> = file.instructions.iter().map(|i| i.kind.clone()).collect();
    assert_eq!(
        kinds[1],
        Kind::Cmd(CommandLine::Exec(vec!["a".into(), "b c".into()]))
    );
    assert_eq!(kinds[2], Kind::Cmd(CommandLine::Shell("[a]".into())));
    assert_eq!(kinds[3], Kind::Entrypoint(CommandLine::Shell("x y".into())));
    assert_eq!(kinds[4], Kind::Shell(vec!["/bin/bash".into(), "-c".into()]));
}

#[test]
fn flags_of_copy_and_run() {
    let file = parse(
        "FROM --platform=$BUILDPLATFORM a AS b\nCOPY --from=b --chown=1:2 --chmod=u+x --link --parents --exclude=*.o --exclude=x a b /c/\nADD --checksum=sha256:00 --unpack=false --keep-git-dir=true http://x/ /y\nRUN --mount=type=cache,id=x,target=/m,sharing=locked --mount=type=secret,id=s,env=T --network=none x\n",
    );
    let Kind::Copy(copy) = &file.instructions[1].kind else {
        panic!()
    };
    assert_eq!(
        (copy.from.as_deref(), copy.sources.len(), copy.exclude.len()),
        (Some("b"), 2, 2)
    );
    assert!(copy.link && copy.parents);
    let Kind::Add(add) = &file.instructions[2].kind else {
        panic!()
    };
    assert_eq!((add.unpack, add.keep_git_dir), (Some(false), true));
    let Kind::Run(run) = &file.instructions[3].kind else {
        panic!()
    };
    assert_eq!(run.mounts.len(), 2);
    assert!(matches!(
        run.mounts[0].kind,
        MountKind::Cache {
            sharing: Sharing::Locked,
            ..
        }
    ));
    assert_eq!(run.command, CommandLine::Shell("x".to_owned()));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let table = [
        (
            "FROM a\n  RUNN x\n",
            "Dockerfile:2:3: `RUNN` is no instruction",
        ),
        ("FROM a b\n", "Dockerfile:1:1: FROM needs an image"),
        ("FROM a AS 1x\n", "Dockerfile:1:11: `1x` cannot be the name"),
        (
            "FROM a\nCOPY --frm=x a b\n",
            "Dockerfile:2:6: COPY has no flag `--frm`",
        ),
        ("FROM a\nCOPY a\n", "Dockerfile:2:1: COPY needs a source"),
        (
            "FROM a\nRUN \\\n --mount=type=bnd,target=/x y\n",
            "Dockerfile:3:2: `bnd` is no type",
        ),
        (
            "FROM a\nRUN --mount=type=tmpfs,target=/x,id=y z\n",
            "a tmpfs mount has no option `id`",
        ),
        (
            "FROM a\nRUN --security=none z\n",
            "`--security=none` is neither sandbox nor insecure",
        ),
        (
            "FROM a\nRUN --network=default \\\n --device=/dev/fuse z\n",
            "Dockerfile:3:2: `/dev/fuse` is no name of a device",
        ),
        ("FROM a\nONBUILD FROM b\n", "ONBUILD cannot hold `FROM`"),
        ("FROM a\nENV X\n", "`X` has no value"),
        ("FROM a\nHEALTHCHECK --interval=5 CMD x\n", "no duration"),
        ("FROM a\nHEALTHCHECK --retries=0 CMD x\n", "no number"),
        ("FROM a\nSHELL bash\n", "SHELL needs a list"),
        ("FROM a\nWORKDIR\n", "WORKDIR needs an argument"),
        ("# only\n", "no instructions"),
        ("", "no instructions"),
    ];
    for (text, expected) in table {
        let error = fails(text);
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let error = Dockerfile::parse("Dockerfile", "FROM a\nRUNN x\n").unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("did you mean `RUN`?"));
    assert_eq!(error.place().unwrap().text, "RUNN x");
}

#[test]
fn pairs_of_env_in_both_forms() {
    let file = parse("FROM a\nENV A=1 B=\"x y\" C=d\\ e\nENV D  one two\nLABEL a.b=c\nARG X Y=1\n");
    let Kind::Env(pairs, false) = &file.instructions[1].kind else {
        panic!()
    };
    let values: Vec<_> = pairs.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["1", "\"x y\"", "d\\ e"]);
    assert!(
        matches!(&file.instructions[2].kind, Kind::Env(pairs, true) if pairs[0].1 == "one two")
    );
    assert!(
        matches!(&file.instructions[4].kind, Kind::Arg(args) if args.len() == 2 && args[1].default.as_deref() == Some("1"))
    );
}

#[test]
fn health_check_takes_go_durations() {
    let file = parse(
        "FROM a\nHEALTHCHECK --interval=1m30s --timeout=2s --retries=3 CMD curl x\nHEALTHCHECK NONE\n",
    );
    let Kind::Healthcheck(health) = &file.instructions[1].kind else {
        panic!()
    };
    assert_eq!(
        (health.interval, health.timeout, health.retries),
        (90_000_000_000, 2_000_000_000, 3)
    );
    assert!(
        matches!(&file.instructions[2].kind, Kind::Healthcheck(health) if health.command.is_none())
    );
}

proptest::proptest! {
    /// Whatever the text is, parsing ends, and the place of an error is in it.
    #[test]
    fn any_text_parses_or_fails_at_a_place(text in "(FROM a\n)?[A-Z<\\\\`#$ \"'=\\[\\]a-z\n\t-]{0,200}") {
        match Dockerfile::parse("f", &text) {
            Ok(file) => {
                for instruction in &file.instructions {
                    proptest::prop_assert!(instruction.line <= instruction.end);
                    proptest::prop_assert!(instruction.end <= file.lines.len());
                }
            }
            Err(error) => {
                let place = error.place().cloned();
                proptest::prop_assert!(place.is_some_and(|place| place.line <= text.split('\n').count()));
            }
        }
    }
}
