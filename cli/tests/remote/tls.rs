//! TCP: certificates on both sides, and nothing open by mistake.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::support::{Daemon, TIMEOUT, answered, request, run, sandbox};

/// An authority, and what it has signed.
struct Authority {
    dir: PathBuf,
}

impl Authority {
    fn new(dir: PathBuf) -> Self {
        std::fs::create_dir(&dir).unwrap();
        let file = |name: &str| dir.join(name).display().to_string();
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-keyout",
                &file("ca-key.pem"),
                "-out",
                &file("ca.pem"),
                "-days",
                "2",
                "-subj",
                "/CN=authority",
            ],
        );
        Self { dir }
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A directory with `ca.pem`, `cert.pem` and `key.pem` for one side.
    fn side(&self, name: &str, usage: &str) -> PathBuf {
        let dir = self.dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        let file = |name: &str| dir.join(name).display().to_string();
        run(
            "openssl",
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-keyout",
                &file("key.pem"),
                "-out",
                &file("csr.pem"),
                "-subj",
                &format!("/CN={name}"),
            ],
        );
        let extensions =
            format!("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage={usage}\n");
        sys::durable::create_file(&dir.join("ext"), extensions.as_bytes(), 0o600).unwrap();
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &file("csr.pem"),
                "-CA",
                &self.file("ca.pem"),
                "-CAkey",
                &self.file("ca-key.pem"),
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                &file("ext"),
                "-out",
                &file("cert.pem"),
            ],
        );
        std::fs::copy(self.dir.join("ca.pem"), dir.join("ca.pem")).unwrap();
        dir
    }
}

fn options(dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut all = vec!["--tlsverify".to_owned()];
    for (option, name) in [
        ("--tlscacert", "ca.pem"),
        ("--tlscert", "cert.pem"),
        ("--tlskey", "key.pem"),
    ] {
        all.extend([option.to_owned(), file(name)]);
    }
    all
}

#[test]
fn who_has_a_certificate_of_the_authority_is_served_and_nobody_else() {
    let Some(cx) = sandbox() else { return };
    let authority = Authority::new(cx.path().join("pki"));
    let (server, client) = (
        authority.side("server", "serverAuth"),
        authority.side("client", "clientAuth"),
    );
    let stranger = Authority::new(cx.path().join("other")).side("client", "clientAuth");
    // It trusts the daemon; the daemon does not trust it.
    std::fs::copy(client.join("ca.pem"), stranger.join("ca.pem")).unwrap();
    let mut args = vec!["--host".to_owned(), "tcp://127.0.0.1:0".to_owned()];
    args.extend(options(&server));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let daemon = Daemon::in_sandbox(cx, &args);
    let address = daemon.printed("listening at tcp://");
    let host = format!("tcp://{address}");
    let ketch = |dir: &Path, args: &[&str]| {
        let tls = dir.display().to_string();
        daemon.ketch(&[&["--host", &host, "--tls-path", &tls], args].concat())
    };
    let run = ketch(&client, &["version", "--format", "{{.Server.ApiVersion}}"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (0, "1.56\n"),
        "{}",
        run.stderr
    );
    // A stream in both directions goes through it, with the end of input.
    let tls = client.display().to_string();
    let run = daemon.cx.ketch_with_input(
        [
            "--host",
            &host,
            "--tls-path",
            &tls,
            "run",
            "--rm",
            "-i",
            "--network",
            "none",
            "box",
            "/bin/wc",
            "-c",
        ],
        b"12345",
    );
    assert_eq!((run.code, run.stdout.trim()), (0, "5"), "{}", run.stderr);
    let refused = ketch(&stranger, &["version"]);
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    // Without TLS there is no answer.
    let mut plain = TcpStream::connect(&address).unwrap();
    plain.set_read_timeout(Some(TIMEOUT)).unwrap();
    plain
        .write_all(request("GET", "/_ping", "").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    // It may be reset instead.
    drop(plain.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // The daemon goes on.
    assert_eq!(daemon.ask("GET", "/_ping", "").0, 200);
}

#[test]
fn stock_client_speaks_tls_with_the_daemon() {
    let Some(cx) = sandbox() else { return };
    let authority = Authority::new(cx.path().join("pki"));
    let (server, client) = (
        authority.side("server", "serverAuth"),
        authority.side("client", "clientAuth"),
    );
    let mut args = vec!["--host".to_owned(), "tcp://127.0.0.1:0".to_owned()];
    args.extend(options(&server));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let daemon = Daemon::in_sandbox(cx, &args);
    let host = format!("tcp://{}", daemon.printed("listening at tcp://"));
    let mut command = options(&client);
    command.extend(["-H".to_owned(), host, "run".to_owned(), "--rm".to_owned()]);
    command.extend(["--network", "none", "box", "/bin/echo", "through"].map(str::to_owned));
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    assert_eq!(run("docker", &command), "through\n");
}

#[test]
fn port_for_everyone_is_refused_unless_it_is_wanted() {
    let Some(cx) = sandbox() else { return };
    let run = cx.ketch(["daemon", "--host", "tcp://0.0.0.0:0"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("without TLS"), "{}", run.stderr);
    let run = cx.ketch(["daemon", "--host", "tcp://127.0.0.1:0", "--tlsverify"]);
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("--tlscacert"), "{}", run.stderr);
    let daemon = Daemon::in_sandbox(cx, &["--host", "tcp://0.0.0.0:0", "--insecure-tcp"]);
    let address = daemon.printed("listening at tcp://");
    let port = address.rsplit(':').next().unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(answered(&mut stream, &request("GET", "/_ping", "")).0, 200);
    // It says what that means.
    daemon.logged(|line| line.contains("has all of this host"));
}
