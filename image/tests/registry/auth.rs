//! Proving who one is: every form of challenge, and what token services do.

use std::sync::Mutex;

use image::{
    AuthConfig, Credentials, ErrorKind, ImageError, PlatformChoice, Pulled, Reference,
    RegistryOptions, Secret, check_credentials,
};

use crate::support::stub::{Answer, Request, Stub};
use crate::support::{Place, RealImage};

fn pull(host: &str, entry: &str) -> Result<Pulled, ImageError> {
    let auths = format!(r#"{{"auths": {{"{host}": {entry}}}}}"#);
    let options = RegistryOptions {
        auth: AuthConfig::load(None, Some(&auths)).unwrap(),
        ..RegistryOptions::default()
    };
    let reference = Reference::parse(&format!("{host}/app")).unwrap();
    let place = Place::new();
    place
        .store
        .pull(&reference, &PlatformChoice::Default, &options, &())
}

/// `user:pass`
const PASSWORD: &str = r#"{"auth": "dXNlcjpwYXNz"}"#;
const BASIC: &str = "Basic dXNlcjpwYXNz";

/// A registry that serves an image to whom `is_good` knows, and challenges everybody else.
fn registry(
    challenges: Vec<String>,
    is_good: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> Stub {
    let image = RealImage::new(b"x");
    Stub::start(move |request| match is_good(request) {
        true => image.answer(request),
        false => challenges
            .iter()
            .fold(Answer::new(401), |answer, challenge| {
                answer.header("WWW-Authenticate", challenge)
            }),
    })
}

fn shows(request: &Request, authorization: &str) -> bool {
    request.header("authorization") == Some(authorization)
}

#[test]
fn service_that_knows_posts_only_gets_the_password_in_a_form() {
    let service = Stub::start(|request| {
        let form = "scope=repository%3Aapp%3Apull&service=s&client_id=ketch\
                    &grant_type=password&username=user&password=pass";
        match request.method.as_str() {
            "POST" if request.body == form.as_bytes() => {
                Answer::new(200).body(br#"{"access_token":"posted"}"#)
            }
            "POST" => Answer::new(400),
            _ => Answer::new(405),
        }
    });
    let challenge = format!("Bearer realm=\"http://{}/token\",service=s", service.host);
    let stub = registry(vec![challenge], |request| shows(request, "Bearer posted"));
    pull(&stub.host, PASSWORD).unwrap();
    assert_eq!(service.count(|r| r.method == "GET"), 1);
    // Without a password there is nothing to post.
    let error = pull(&stub.host, "{}").unwrap_err();
    assert_eq!(service.count(|r| r.method == "POST"), 1);
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
}

#[test]
fn refresh_token_that_is_replaced_is_used_once() {
    let newest = Mutex::new(0);
    let service = Stub::start(move |request| {
        let mut newest = newest.lock().unwrap();
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if !body.ends_with(&format!("&refresh_token=r{newest}")) {
            return Answer::new(400);
        }
        *newest += 1;
        let answer = format!(r#"{{"access_token":"a{newest}","refresh_token":"r{newest}"}}"#);
        Answer::new(200).body(answer.as_bytes())
    });
    let challenge = format!("Bearer realm=\"http://{}/token\"", service.host);
    // Another access token for the blobs: the second one of the service.
    let stub = registry(vec![challenge], |request| {
        let wanted = match request.path.contains("manifests") {
            true => "Bearer a1",
            false => "Bearer a2",
        };
        shows(request, wanted)
    });
    pull(&stub.host, r#"{"identitytoken": "r0"}"#).unwrap();
    assert_eq!(service.count(|_| true), 2);
}

#[test]
fn challenge_that_cannot_be_answered_is_followed_by_the_next() {
    let closed = Stub::start(|_| Answer::new(403));
    let open = Stub::start(|_| Answer::new(200).body(br#"{"token":"open"}"#));
    let bearer = |stub: &Stub| format!("Bearer realm=\"http://{}/token\"", stub.host);
    // Two in one header, a third that nobody knows.
    let both = format!("{}, {}", bearer(&closed), bearer(&open));
    let stub = registry(vec!["Negotiate".to_owned(), both], |request| {
        shows(request, "Bearer open")
    });
    pull(&stub.host, PASSWORD).unwrap();
    let challenges = vec![bearer(&closed), "Basic realm=\"r\"".to_owned()];
    let stub = registry(challenges, |request| shows(request, BASIC));
    pull(&stub.host, PASSWORD).unwrap();
    // A service that is only busy is waited for instead: the password stays here.
    let busy = Stub::counting(|_, earlier| match earlier {
        0 => Answer::new(503),
        _ => Answer::new(200).body(br#"{"token":"late"}"#),
    });
    let challenges = vec![bearer(&busy), "Basic realm=\"r\"".to_owned()];
    let stub = registry(challenges, |request| shows(request, "Bearer late"));
    pull(&stub.host, PASSWORD).unwrap();
    assert_eq!(stub.count(|request| shows(request, BASIC)), 0);
}

#[test]
fn login_keeps_the_token_that_is_given_for_the_password() {
    let service = Stub::start(|request| {
        let asks = request.path.contains("offline_token=true");
        match asks && shows(request, BASIC) {
            true => Answer::new(200).body(br#"{"token":"t","refresh_token":"keep"}"#),
            false => Answer::new(401),
        }
    });
    let challenge = format!("Bearer realm=\"http://{}/token\"", service.host);
    let stub = registry(vec![challenge], |request| shows(request, "Bearer t"));
    let password = |text: &str| Credentials::Password {
        username: "user".to_owned(),
        password: Secret::new(text.to_owned()),
    };
    let options = RegistryOptions::default();
    let kept = check_credentials(&stub.host, &password("pass"), &options).unwrap();
    let token = Credentials::IdentityToken(Secret::new("keep".to_owned()));
    assert_eq!(kept, token);
    let error = check_credentials(&stub.host, &password("wrong"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    // A registry without a token service has the password kept.
    let challenges = vec!["Basic realm=\"r\"".to_owned()];
    let stub = registry(challenges, |request| shows(request, BASIC));
    let kept = check_credentials(&stub.host, &password("pass"), &options).unwrap();
    assert_eq!(kept, password("pass"));
}
