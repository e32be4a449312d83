//! A small HTTP server that answers as the test says, however wrong that is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header, named in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// An answer, bytes and all.
#[derive(Debug)]
pub(crate) struct Answer {
    head: String,
    body: Vec<u8>,
    length: Option<usize>,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            head: format!("HTTP/1.1 {status} Told\r\nConnection: close\r\n"),
            body: Vec::new(),
            length: Some(0),
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn body(mut self, bytes: &[u8]) -> Self {
        self.body = bytes.to_vec();
        self.length = Some(bytes.len());
        self
    }

    /// A body whose length is not announced.
    pub(crate) fn body_until_close(mut self, bytes: &[u8]) -> Self {
        self.body = bytes.to_vec();
        self.length = None;
        self
    }

    /// Hangs up after so many bytes of the body.
    pub(crate) fn truncate(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self
    }
}

/// A server that lives as long as the test process.
pub(crate) struct Stub {
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Stub {
    /// Answers each request by its own.
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::counting(move |request, _| answer(request))
    }

    /// Also says how often the same path was asked for earlier.
    pub(crate) fn counting(
        answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, answer) = (stream.unwrap(), Arc::clone(&answer));
                let seen: Arc<Mutex<Vec<Request>>> = Arc::clone(&seen);
                std::thread::spawn(move || {
                    let Some(request) = read_request(&stream) else {
                        return;
                    };
                    let earlier = {
                        let mut seen = seen.lock().unwrap();
                        let earlier = seen.iter().filter(|r| r.path == request.path).count();
                        seen.push(request.clone());
                        earlier
                    };
                    write_answer(stream, &answer(&request, earlier), &request.method);
                });
            }
        });
        Self { host, requests }
    }

    /// How many requests were such.
    pub(crate) fn count(&self, such: impl Fn(&Request) -> bool) -> usize {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .filter(|r| such(r))
            .count()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut stream = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        method,
        path,
        body: Vec::new(),
        headers,
    };
    if let Some(length) = request.header("content-length") {
        let mut body = stream.take(length.parse().ok()?);
        body.read_to_end(&mut request.body).ok()?;
    }
    Some(request)
}

fn write_answer(mut stream: TcpStream, answer: &Answer, method: &str) {
    let length = answer
        .length
        .map(|length| format!("Content-Length: {length}\r\n"))
        .unwrap_or_default();
    let mut bytes = format!("{}{length}\r\n", answer.head).into_bytes();
    if method != "HEAD" {
        bytes.extend_from_slice(&answer.body);
    }
    // The client may hang up early, and shall where an answer is too long.
    drop(stream.write_all(&bytes));
}
