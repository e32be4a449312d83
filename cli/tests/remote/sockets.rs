//! Sockets that allow a part of the API.

use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::support::{Daemon, SLEEPER, ask};

/// The document of an answer.
fn document(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body.trim()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn refused(socket: &Path, method: &str, path: &str, body: &str) {
    let (status, answer) = ask(socket, method, path, body);
    assert_eq!(status, 403, "{method} {path}: {answer}");
    let message = document(&answer)["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("authorization denied by the socket"),
        "{message}"
    );
}

#[test]
fn read_only_socket_shows_everything_and_changes_nothing() {
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    let id = daemon.sleeper("one", "{}");
    let socket = daemon.scoped(&["--read-only", "look"]);
    for path in [
        "/_ping",
        "/version",
        "/info",
        "/containers/json",
        "/images/json",
        "/networks",
        "/volumes",
        "/system/df",
    ] {
        assert_eq!(ask(&socket, "GET", path, "").0, 200, "{path}");
    }
    let (_, answer) = ask(&socket, "GET", "/containers/one/json", "");
    assert_eq!(document(&answer)["Id"], id.as_str());
    for (method, path) in [
        ("POST", "/containers/create"),
        ("POST", "/containers/one/stop"),
        ("POST", "/containers/one/attach"),
        ("POST", "/v1.44/containers/one/exec"),
        ("PUT", "/containers/one/archive?path=/"),
        ("DELETE", "/containers/one"),
        ("POST", "/images/create?fromImage=x"),
        ("DELETE", "/images/box"),
        ("POST", "/networks/create"),
        ("DELETE", "/volumes/x"),
        ("POST", "/build"),
        ("POST", "/grpc"),
        ("POST", "/session"),
        ("POST", "/auth"),
        ("POST", "/swarm/init"),
    ] {
        refused(&socket, method, path, "");
    }
    let (_, answer) = daemon.ask("GET", "/containers/one/json", "");
    assert_eq!(document(&answer)["State"]["Running"], true);
    // What is no route is none here either.
    assert_eq!(ask(&socket, "GET", "/nowhere", "").0, 404);
}

#[test]
fn label_hides_everything_else_and_is_given_to_what_is_new() {
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    daemon.sleeper("own", r#"{"team":"a","x":"y"}"#);
    let foreign = daemon.sleeper("foreign", r#"{"team":"b"}"#);
    let socket = daemon.scoped(&["--label", "team=a", "team"]);
    let names = |path: &str| {
        let (status, answer) = ask(&socket, "GET", path, "");
        assert_eq!(status, 200, "{answer}");
        let list = document(&answer);
        let names = list.as_array().unwrap().iter();
        names
            .map(|one| one["Names"][0].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("/containers/json?all=1"), ["/own"]);
    // Filters of the client's own cannot widen it.
    assert_eq!(
        names("/containers/json?all=1&filters=%7B%22label%22:%5B%22x%22%5D%7D"),
        ["/own"]
    );
    assert!(names("/containers/json?filters=%7B%22label%22:%7B%22team=b%22:true%7D%7D").is_empty());
    let short = &foreign[..12];
    for (method, path) in [
        ("GET", "/containers/foreign/json".to_owned()),
        ("GET", format!("/containers/{foreign}/json")),
        ("GET", format!("/containers/{short}/logs?stdout=1")),
        ("POST", format!("/containers/{short}/kill")),
        ("POST", "/containers/foreign/exec".to_owned()),
        ("DELETE", "/containers/foreign?force=1".to_owned()),
        (
            "GET",
            "/containers/json?filters=%7B%22before%22:%5B%22foreign%22%5D%7D".to_owned(),
        ),
    ] {
        let (status, answer) = ask(&socket, method, &path, "{}");
        assert_eq!(status, 404, "{method} {path}: {answer}");
        assert!(answer.contains("No such container"), "{answer}");
    }
    // A new one gets the label, whatever it says itself.
    let body = SLEEPER.replacen('{', r#"{"Labels":{"team":"b","k":"v"},"#, 1);
    let (status, answer) = ask(&socket, "POST", "/containers/create?name=new", &body);
    assert_eq!(status, 201, "{answer}");
    let (_, answer) = daemon.ask("GET", "/containers/new/json", "");
    assert_eq!(document(&answer)["Config"]["Labels"]["team"], "a");
    assert_eq!(document(&answer)["Config"]["Labels"]["k"], "v");
    // It counts as its own.
    let (_, answer) = ask(&socket, "GET", "/info", "");
    assert_eq!(document(&answer)["Containers"], 2);
    let (_, answer) = ask(&socket, "GET", "/v1.44/system/df", "");
    assert_eq!(document(&answer)["Containers"].as_array().unwrap().len(), 2);
    let (status, answer) = ask(&socket, "POST", "/containers/prune", "");
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        document(&answer)["ContainersDeleted"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(daemon.ask("GET", "/containers/foreign/json", "").0, 200);
}

#[test]
fn exec_instances_networks_and_volumes_of_others_are_not_there() {
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    daemon.sleeper("own", r#"{"team":"a"}"#);
    daemon.sleeper("foreign", "{}");
    let socket = daemon.scoped(&["--label", "team=a", "team"]);
    let body = r#"{"AttachStdout":true,"Cmd":["/bin/echo","x"]}"#;
    let (_, answer) = daemon.ask("POST", "/containers/foreign/exec", body);
    let id = document(&answer)["Id"].as_str().unwrap().to_owned();
    for (method, path) in [
        ("GET", format!("/exec/{id}/json")),
        ("POST", format!("/exec/{id}/start")),
    ] {
        let (status, answer) = ask(&socket, method, &path, "{}");
        assert_eq!(status, 404, "{answer}");
        assert!(answer.contains("No such exec instance"), "{answer}");
    }
    let (_, answer) = ask(&socket, "POST", "/containers/own/exec", body);
    let id = document(&answer)["Id"].as_str().unwrap().to_owned();
    assert_eq!(ask(&socket, "GET", &format!("/exec/{id}/json"), "").0, 200);
    // Volumes.
    assert_eq!(
        daemon
            .ask("POST", "/volumes/create", r#"{"Name":"theirs"}"#)
            .0,
        201
    );
    let (status, answer) = ask(&socket, "POST", "/volumes/create", r#"{"Name":"ours"}"#);
    assert_eq!(status, 201, "{answer}");
    assert_eq!(document(&answer)["Labels"]["team"], "a");
    assert_eq!(
        ask(&socket, "POST", "/volumes/create", r#"{"Name":"theirs"}"#).0,
        409
    );
    assert_eq!(ask(&socket, "GET", "/volumes/theirs", "").0, 404);
    assert_eq!(ask(&socket, "DELETE", "/volumes/theirs", "").0, 404);
    let (_, answer) = ask(&socket, "GET", "/volumes", "");
    let list = document(&answer)["Volumes"].as_array().unwrap().clone();
    assert_eq!(list.len(), 1, "{list:?}");
    // Mounting it is no way around; a new one gets the label.
    let mounting = |name: &str| {
        let host = format!(r#""HostConfig":{{"Binds":["{name}:/v"],"#);
        SLEEPER.replacen(r#""HostConfig":{"#, &host, 1)
    };
    let (status, answer) = ask(&socket, "POST", "/containers/create", &mounting("theirs"));
    assert_eq!(status, 404, "{answer}");
    let (status, answer) = ask(&socket, "POST", "/containers/create", &mounting("fresh"));
    assert_eq!(status, 201, "{answer}");
    assert_eq!(ask(&socket, "GET", "/volumes/fresh", "").0, 200);
    // Networks that are there for everyone are used, not looked at.
    assert_eq!(ask(&socket, "GET", "/networks/host", "").0, 404);
}

#[test]
fn host_is_not_handed_out_without_its_verb() {
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    daemon.sleeper("other", "{}");
    let socket = daemon.scoped(&[
        "--allow",
        "create,start,exec,networks,volumes,build",
        "make",
    ]);
    let with_host = daemon.scoped(&["--allow", "create,host", "all"]);
    for host in [
        r#""Privileged":true"#,
        r#""Binds":["/etc:/mnt"]"#,
        r#""Binds":["/:/mnt:ro"]"#,
        r#""Mounts":[{"Type":"bind","Source":"/etc","Target":"/mnt"}]"#,
        r#""PidMode":"host""#,
        r#""IpcMode":"host""#,
        r#""UTSMode":"host""#,
        r#""CapAdd":["SYS_ADMIN"]"#,
        r#""Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/x","CgroupPermissions":"rwm"}]"#,
        r#""SecurityOpt":["seccomp=unconfined"]"#,
        r#""CgroupParent":"x""#,
    ] {
        let body = format!(
            r#"{{"Image":"box","Cmd":["/bin/echo"],"HostConfig":{{"NetworkMode":"none",{host}}}}}"#
        );
        refused(&socket, "POST", "/containers/create", &body);
        let (status, answer) = ask(&with_host, "POST", "/containers/create", &body);
        assert_eq!(status, 201, "{host}: {answer}");
    }
    for host in [
        r#""NetworkMode":"host""#,
        r#""NetworkMode":"container:other""#,
        r#""VolumesFrom":["other"]"#,
        r#""PidMode":"container:other""#,
        r#""MaskedPaths":[]"#,
        r#""OomScoreAdj":-500"#,
        r#""SomethingNew":{"a":1}"#,
        r#""LogConfig":{"Type":"syslog"}"#,
    ] {
        let body = format!(r#"{{"Image":"box","Cmd":["/bin/echo"],"HostConfig":{{{host}}}}}"#);
        refused(&socket, "POST", "/containers/create", &body);
    }
    refused(
        &socket,
        "POST",
        "/containers/other/exec",
        r#"{"Cmd":["/bin/sh"],"Privileged":true}"#,
    );
    refused(
        &socket,
        "POST",
        "/volumes/create",
        r#"{"Name":"v","DriverOpts":{"type":"none","o":"bind","device":"/"}}"#,
    );
    refused(
        &socket,
        "POST",
        "/networks/create",
        r#"{"Name":"n","Driver":"macvlan"}"#,
    );
    refused(&socket, "POST", "/build?networkmode=host", "");
    refused(&socket, "POST", "/containers/other/stop", "");
    let (status, answer) = ask(&socket, "POST", "/containers/create", SLEEPER);
    assert_eq!(status, 201, "{answer}");
}

#[test]
fn sockets_come_and_go_with_a_running_daemon_and_survive_it() {
    let Some(mut daemon) = Daemon::start(&[]) else {
        return;
    };
    let socket = daemon.scoped(&["--read-only", "--label", "a=b", "one"]);
    assert!(
        socket.ends_with("run/sockets/one/docker.sock"),
        "{}",
        socket.display()
    );
    let path = daemon.cx.path().join("own.sock");
    let own = daemon.scoped(&["--allow", "logs", path.to_str().unwrap()]);
    assert_eq!(own, path);
    let again = daemon.ketch(&["socket", "create", "--read-only", "one"]);
    assert_eq!(again.code, 1);
    assert!(
        again.stderr.contains("is there already"),
        "{}",
        again.stderr
    );
    let nothing = daemon.ketch(&["socket", "create", "two"]);
    assert!(
        nothing.stderr.contains("would be the full one"),
        "{}",
        nothing.stderr
    );
    daemon.restart();
    crate::support::until("the socket is back", || {
        UnixStream::connect(&socket).is_ok()
    });
    refused(&socket, "POST", "/containers/create", "{}");
    let listed = daemon.ketch(&["socket", "ls"]);
    assert!(listed.stdout.contains("one"), "{}", listed.stdout);
    assert!(listed.stdout.contains("a=b"), "{}", listed.stdout);
    let removed = daemon.ketch(&["socket", "rm", "one", path.to_str().unwrap()]);
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert!(UnixStream::connect(&socket).is_err() && UnixStream::connect(&path).is_err());
    assert!(daemon.ketch(&["socket", "ls", "-q"]).stdout.is_empty());
    // The full socket goes on.
    assert_eq!(daemon.ask("GET", "/_ping", "").0, 200);
}

#[test]
fn container_that_mounts_the_full_socket_is_warned_of() {
    let Some(daemon) = Daemon::start(&[]) else {
        return;
    };
    let dir = daemon.cx.path().display().to_string();
    let body = |source: &str| {
        let host = format!(r#""HostConfig":{{"Binds":["{source}:/s"],"#);
        SLEEPER.replacen(r#""HostConfig":{"#, &host, 1)
    };
    for source in [format!("{dir}/api.sock"), dir.clone()] {
        let (status, answer) = daemon.ask("POST", "/containers/create", &body(&source));
        assert_eq!(status, 201, "{answer}");
        let warnings = document(&answer)["Warnings"].to_string();
        assert!(warnings.contains("has all of this host"), "{warnings}");
        let mount = format!("{source}:/s");
        let run = daemon.ketch(&["create", "-v", &mount, "box", "/bin/echo"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(
            run.stderr.contains("has all of this host"),
            "{}",
            run.stderr
        );
    }
    let socket = daemon.scoped(&["--read-only", "look"]);
    let mount = format!("{}:/s", socket.display());
    let run = daemon.ketch(&["create", "-v", &mount, "box", "/bin/echo"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}
