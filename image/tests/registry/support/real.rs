//! Debian's `docker-registry`, on loopback, with its storage in a temporary directory.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use image::Digest;
use reqwest::{Client, Method, RequestBuilder, Response};
use tempfile::TempDir;

/// What a registry has beside the usual.
#[derive(Clone, Copy)]
pub(crate) enum Extra<'a> {
    None,
    /// It wants `user` and `secret`.
    Password,
    /// It speaks TLS.
    Tls(&'a Tls),
    /// It speaks TLS, to those only who have a certificate of the same authority.
    MutualTls(&'a Tls),
    /// It speaks TLS and names a token service that does not.
    PlainRealm(&'a Tls),
}

/// A registry that runs until it is dropped.
pub(crate) struct Registry {
    pub(crate) host: String,
    scheme: &'static str,
    client: Client,
    runtime: tokio::runtime::Runtime,
    child: Child,
    _dir: TempDir,
}

impl Registry {
    /// Starts one; says so when that is not possible here.
    pub(crate) fn start(extra: Extra<'_>) -> Option<Self> {
        needed("docker-registry", &["--version"])?;
        if matches!(extra, Extra::Password) {
            // Its exit status without arguments is 2.
            needed("htpasswd", &["-nbB", "user", "x"])?;
        }
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        write(&config, configuration(dir.path(), extra).as_bytes());
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = log
            .find(|line| line.as_ref().unwrap().contains("listening on"))
            .expect("docker-registry says where it listens")
            .unwrap();
        let at = line.find("127.0.0.1:").unwrap();
        let host: String = line[at..]
            .chars()
            .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
            .collect();
        // A full pipe would stop it.
        std::thread::spawn(move || log.count());
        let mut client = Client::builder();
        if let Extra::Tls(tls) | Extra::MutualTls(tls) | Extra::PlainRealm(tls) = extra {
            let authority = std::fs::read(tls.authority()).unwrap();
            client = client.tls_certs_merge([reqwest::Certificate::from_pem(&authority).unwrap()]);
        }
        if let Extra::MutualTls(tls) = extra {
            let mut pem = std::fs::read(tls.file("client.cert")).unwrap();
            pem.extend(std::fs::read(tls.file("client.key")).unwrap());
            client = client.identity(reqwest::Identity::from_pem(&pem).unwrap());
        }
        install_crypto();
        Some(Self {
            host: host.trim_end_matches([',', '.', ':']).to_owned(),
            scheme: match extra {
                Extra::Tls(_) | Extra::MutualTls(_) | Extra::PlainRealm(_) => "https",
                Extra::None | Extra::Password => "http",
            },
            client: client.build().unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            child,
            _dir: dir,
        })
    }

    /// Uploads blobs to a repository.
    pub(crate) fn fill(&self, repository: &str, blobs: &[&[u8]]) {
        for blob in blobs {
            let begin = self.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/"));
            let answer = self.send(begin);
            let location = answer.headers()["Location"].to_str().unwrap().to_owned();
            let separator = if location.contains('?') { '&' } else { '?' };
            let digest = Digest::of(blob);
            let url = format!("{location}{separator}digest={digest}");
            let put = self
                .client
                .put(url)
                .basic_auth("user", Some("secret"))
                .header("Content-Type", "application/octet-stream")
                .body(blob.to_vec());
            self.send(put);
        }
    }

    /// Uploads a manifest under a tag or its digest.
    pub(crate) fn put_manifest(&self, repository: &str, name: &str, media_type: &str, body: &[u8]) {
        let request = self
            .request(Method::PUT, &format!("/v2/{repository}/manifests/{name}"))
            .header("Content-Type", media_type)
            .body(body.to_vec());
        self.send(request);
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}://{}{path}", self.scheme, self.host);
        self.client
            .request(method, url)
            .basic_auth("user", Some("secret"))
    }

    fn send(&self, request: RequestBuilder) -> Response {
        let answer = self.runtime.block_on(request.send()).unwrap();
        let status = answer.status();
        if !status.is_success() {
            panic!(
                "{status}: {}",
                self.runtime.block_on(answer.text()).unwrap()
            );
        }
        answer
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A certificate for 127.0.0.1 and the authority that signed it.
pub(crate) struct Tls(TempDir);

impl Tls {
    pub(crate) fn make() -> Option<Self> {
        needed("openssl", &["version"])?;
        let tls = Self(tempfile::tempdir().unwrap());
        let openssl = |arguments: &str| {
            let done = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(tls.0.path())
                .output()
                .unwrap();
            assert!(
                done.status.success(),
                "{}",
                String::from_utf8_lossy(&done.stderr)
            );
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"
        ));
        openssl(&format!(
            "req {key} -keyout key.pem -out request.pem -subj /CN=registry"
        ));
        write(
            &tls.0.path().join("extensions"),
            b"subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
        );
        openssl(
            "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem",
        );
        openssl(&format!(
            "req {key} -keyout client.key -out client.request -subj /CN=client"
        ));
        openssl(
            "x509 -req -in client.request -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out client.cert",
        );
        Some(tls)
    }

    /// A file of it: `client.cert`, `client.key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }
}

fn configuration(dir: &Path, extra: Extra<'_>) -> String {
    let storage = dir.join("storage");
    let mut text = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n",
        storage.display()
    );
    match extra {
        Extra::None => text.push_str("http: {addr: '127.0.0.1:0'}\n"),
        Extra::Password => {
            let done = Command::new("htpasswd")
                .args(["-nbB", "user", "secret"])
                .output()
                .unwrap();
            let file = dir.join("htpasswd");
            write(&file, &done.stdout);
            text.push_str("http: {addr: '127.0.0.1:0'}\n");
            let path = file.display();
            text.push_str(&format!("auth: {{htpasswd: {{realm: r, path: {path}}}}}\n"));
        }
        Extra::Tls(tls) | Extra::MutualTls(tls) | Extra::PlainRealm(tls) => {
            let dir = tls.0.path().display();
            let clients = match extra {
                Extra::MutualTls(_) => format!(", clientcas: [{dir}/ca.pem]"),
                _ => String::new(),
            };
            text.push_str(&format!(
                "http: {{addr: '127.0.0.1:0', tls: {{certificate: {dir}/cert.pem, key: {dir}/key.pem{clients}}}}}\n"
            ));
            if matches!(extra, Extra::PlainRealm(_)) {
                text.push_str(&format!(
                    "auth: {{token: {{realm: 'http://127.0.0.1:1/token', service: s, issuer: i, rootcertbundle: {dir}/ca.pem}}}}\n"
                ));
            }
        }
    }
    text
}

fn write(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

fn install_crypto() {
    // Another test may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Whether a program is there. Where everything must run, its absence is a failure.
fn needed(program: &str, arguments: &[&str]) -> Option<()> {
    if Command::new(program).args(arguments).output().is_ok() {
        return Some(());
    }
    #[expect(clippy::disallowed_methods, reason = "the tests' own switch")]
    let required = std::env::var("KETCH_TEST_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "{program} is not installed");
    #[expect(clippy::print_stderr, reason = "a skip is told")]
    {
        eprintln!("skipped: {program} is not installed");
    }
    None
}
