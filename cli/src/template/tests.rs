use super::*;
use serde_json::json;

fn record() -> Value {
    json!({
        "Id": "x",
        "Name": "/web",
        "State": { "Pid": 7, "Running": true, "Health": null, "Load": 0.5 },
        "Config": {
            "Env": ["A=b", "C"],
            "Cmd": null,
            "Labels": { "k": "v", "org.a-b": "w" },
        },
        "NetworkSettings": {
            "Ports": { "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }], "53/udp": null },
        },
        "Mounts": [{ "Type": "bind", "Source": "/a" }, { "Type": "volume", "Source": "/b" }],
    })
}

#[track_caller]
fn renders(template: &str, expected: &str) {
    let labels = json!({ "k": "v" });
    let text = Template::parse(template)
        .and_then(|parsed| parsed.fill(&record(), Some(&labels), Filling::Record));
    assert_eq!(text.as_deref(), Ok(expected), "{template}");
}

#[track_caller]
fn refuses(template: &str, column: usize, reason: &str) {
    let error = Template::parse(template)
        .and_then(|parsed| parsed.render(&record()))
        .unwrap_err();
    assert_eq!(error.column, column, "{template}: {error}");
    assert!(error.reason.contains(reason), "{template}: {error}");
}

#[test]
fn fields_are_printed_as_go_prints_them() {
    renders("{{.Id}}: {{ .State.Pid }}", "x: 7");
    renders(
        "{{.Config.Env}} {{.Config.Cmd}} {{.State.Running}}",
        "[A=b C] [] true",
    );
    renders("{{json .Config.Env}}", r#"["A=b","C"]"#);
    renders("{{.Config.Labels}}", "map[k:v org.a-b:w]");
    renders(
        "{{.State.Load}} {{1.0}} {{-3}} {{0x10}} {{'a'}}",
        "0.5 1 -3 16 97",
    );
    renders("{{$.Id}}{{with .State}}{{$.Id}}{{.Pid}}{{end}}", "xx7");
}

#[test]
fn what_docker_users_write_works() {
    renders(
        r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#,
        "8080",
    );
    renders(
        r#"{{index .Config.Labels "org.a-b"}}{{index .Config.Labels "none"}}"#,
        "w",
    );
    renders(
        "{{range .Mounts}}{{.Type}}={{.Source}};{{end}}",
        "bind=/a;volume=/b;",
    );
    renders(
        "{{range $i, $m := .Mounts}}{{if $i}}, {{end}}{{$m.Source}}{{end}}",
        "/a, /b",
    );
    renders(
        "{{range $p, $c := .NetworkSettings.Ports}}{{$p}}{{if $c}} -> {{(index $c 0).HostPort}}{{end}}\n{{end}}",
        "53/udp\n80/tcp -> 8080\n",
    );
    renders(
        "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
        "none",
    );
    renders("{{slice .Name 1}} {{slice .Id 0 1}}", "web x");
    renders(r#"{{join .Config.Env ","}} {{len .Mounts}}"#, "A=b,C 2");
    renders(r#"{{.Label "k"}}{{.Label "none"}}"#, "v");
    renders(r#"{{range split "a:b" ":"}}<{{.}}>{{end}}"#, "<a><b>");
    renders("{{println .Id}}{{print 1 2 .Id 3}}", "x\n1 2x3");
}

#[test]
fn pipes_pass_the_value_last() {
    renders("{{.Name | upper | printf \"%s!\"}}", "/WEB!");
    renders("{{.Config.Env | len | printf \"%03d\"}}", "002");
    renders("{{(.Name | upper)}}", "/WEB");
    renders(
        r#"{{truncate .Name 3}}|{{pad .Id 1 2}}|{{title "a bc"}}"#,
        "/we| x  |A Bc",
    );
}

#[test]
fn conditions_are_those_of_go() {
    renders("{{if and .State.Running (eq .State.Pid 7)}}a{{end}}", "a");
    renders(
        "{{if or .State.Health .Id}}{{or .State.Health .Id}}{{end}}",
        "x",
    );
    renders(
        "{{if not .State.Running}}a{{else if eq .Id `x` `y`}}b{{else}}c{{end}}",
        "b",
    );
    renders(
        "{{if and (gt 2 1) (le 2 2) (lt 1.5 2) (ge `b` `a`) (ne 1 2)}}a{{end}}",
        "a",
    );
    renders(
        "{{if 0}}a{{else}}b{{end}}{{if ``}}a{{end}}{{with $x := .Id}}{{$x}}{{end}}",
        "bx",
    );
    renders("{{and false .State.Nope}}", "false");
}

#[test]
fn ranges_end_and_go_on() {
    renders(
        "{{range 4}}{{if eq . 1}}{{continue}}{{end}}{{if eq . 3}}{{break}}{{end}}{{.}}{{end}}",
        "02",
    );
    renders("{{range .Config.Cmd}}a{{else}}none{{end}}", "none");
    renders(
        "{{$n := 0}}{{range .Mounts}}{{$n = len .Type}}{{end}}{{$n}}",
        "6",
    );
}

#[test]
fn blanks_and_comments_go_where_they_are_told() {
    renders("a {{- .Id -}} b", "axb");
    renders("a {{/* no */}} b", "a  b");
    renders("a {{- /* no */ -}} b", "ab");
    renders("{{\"}}\"}}", "}}");
}

#[test]
fn printf_has_the_verbs_of_go() {
    renders(
        r#"{{printf "%-4s|%4d|%q|%t|%x|%.2f|%v|%%" "a" 7 "b" true 255 0.5 .Config.Env}}"#,
        "a   |   7|\"b\"|true|ff|0.50|[A=b C]|%",
    );
    refuses(r#"{{printf "%d" "a"}}"#, 3, "does not fit");
    refuses(r#"{{printf "%s"}}"#, 3, "no value");
    refuses(r#"{{printf "%99999d" 1}}"#, 3, "no width");
}

#[test]
fn what_is_wrong_is_named_with_its_column() {
    refuses("{{.A", 1, "not closed");
    refuses("a {{.Nope}}", 5, "no field `Nope`");
    refuses("{{.State.Health.Status}}", 16, "is empty");
    refuses("{{.State.Pid.X}}", 13, "no field `X`");
    refuses("{{}}", 1, "empty");
    refuses("{{.A..B}}", 5, "a blank is missing");
    refuses("{{nope .Id}}", 3, "no function `nope`");
    refuses("{{if .Id}}a", 1, "no `end`");
    refuses("{{end}}", 1, "no block");
    refuses("{{$x}}", 3, "no variable `$x`");
    refuses("{{.Id .Name}}", 7, "takes no arguments");
    refuses("{{.Id | .Name}}", 9, "must be a function");
    refuses("{{index .Mounts 9}}", 3, "no index 9");
    refuses("{{lt 1 \"a\"}}", 3, "different kinds");
    refuses("{{define \"x\"}}{{end}}", 1, "`define`");
    refuses("{{(.Id}}", 3, "not closed");
    refuses("{{break}}", 1, "outside");
    refuses("{{\"a}}", 3, "not closed");
    let error = Template::parse("a\n é{{.}").unwrap_err();
    assert_eq!((error.line, error.column), (2, 6));
}

#[test]
fn header_keeps_names_through_functions() {
    let header = json!({ "Names": "NAMES", "Size": "SIZE" });
    let template =
        Template::parse(r#"{{upper .Names}} {{json .Size}} {{.Label "com.a-b"}}"#).unwrap();
    let text = template.fill(&header, Some(&Value::Null), Filling::Header);
    assert_eq!(text.as_deref(), Ok("NAMES SIZE a b"));
}

#[test]
fn what_would_never_end_is_refused() {
    let deep = "{{(".repeat(2000);
    assert!(Template::parse(&deep).is_err());
    let nested = "{{range 100000}}".repeat(4) + &"{{end}}".repeat(4);
    refuses(&nested, 57, "too much");
    refuses(
        "{{$x := `aaaaaaaa`}}{{range 60}}{{$x = print $x $x}}{{end}}",
        40,
        "too much",
    );
}

#[test]
fn no_change_of_a_template_makes_it_panic() {
    const SEEDS: [&str; 4] = [
        "a {{- range $i, $m := .Mounts}}{{if and $i (eq .Type `bind`)}}{{$m.Source | upper}}{{else}}x{{end}}{{end}}",
        r#"{{with (index .NetworkSettings.Ports "80/tcp")}}{{printf "%-5s %03d %.2f" (index . 0).HostPort 7 1.5}}{{end}}"#,
        "{{/* c */}}{{$x := slice .Name 1}}{{json .Config.Labels}}{{'\\n'}}{{pad $x 1 2}}{{0x1f}}",
        "{{range 3}}{{continue}}{{end}}{{title (join .Config.Env `,`)}}{{é.}}{{.Label \"k\"}}",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below.max(1)).unwrap()).unwrap()
    };
    let record = record();
    for round in 0..20_000 {
        let mut text: Vec<char> = SEEDS[round % SEEDS.len()].chars().collect();
        for _ in 0..=random(3) {
            let at = random(text.len());
            let other = text[random(text.len())];
            match random(3) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, other),
                _ => text[at] = other,
            }
        }
        let text: String = text.into_iter().collect();
        if let Ok(template) = Template::parse(&text) {
            drop(template.render(&record));
        }
    }
}
