//! Answering a registry's challenge: with name and password, or with a token from the service that
//! it names (the token protocol of the distribution project, and its `OAuth2` variant for identity
//! tokens).

use std::borrow::Cow;

use http_auth::parse_challenges;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;

use super::connection::{Access, Connection};
use super::error::{RegistryError, quote};
use super::retry::Failure;
use crate::auth::{Credentials, Secret};

/// The longest answer of a token service: tokens have some kilobytes.
const MAX_ANSWER: u64 = 256 * 1024;
/// How many challenges of one answer are tried.
const MAX_CHALLENGES: usize = 4;
/// Under which name tokens are asked for.
const CLIENT_ID: &str = "ketch";

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token of this service.
    Bearer { realm: Url, service: Option<String> },
    /// Name and password.
    Basic,
}

/// What is shown to the registry with each request.
#[derive(Debug, Clone)]
pub(super) enum Authorization {
    Bearer(Secret),
    Basic { username: String, password: Secret },
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    /// What to ask with from now on: of services that give a new one each time, or in exchange for
    /// a password.
    refresh_token: Option<Secret>,
}

impl Challenge {
    /// The challenges of an answer, those that give away least first. Headers that are no challenges
    /// are passed over.
    pub(super) fn from_headers(headers: &HeaderMap) -> Vec<Self> {
        let mut bearers = Vec::new();
        let mut basic = None;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(challenges) = header
                .to_str()
                .map_err(drop)
                .and_then(|text| parse_challenges(text).map_err(drop))
            else {
                continue;
            };
            for challenge in challenges {
                let parameter = |name: &str| {
                    let mut all = challenge.params.iter();
                    all.find(|(key, _)| key.eq_ignore_ascii_case(name))
                        .map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let realm = parameter("realm").and_then(|realm| Url::parse(&realm).ok());
                    if let Some(realm) = realm {
                        let service = parameter("service");
                        bearers.push(Self::Bearer { realm, service });
                    }
                } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        bearers
            .into_iter()
            .chain(basic)
            .take(MAX_CHALLENGES)
            .collect()
    }
}

impl Authorization {
    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Bearer(token) => request.bearer_auth(token.expose()),
            Self::Basic { username, password } => {
                request.basic_auth(username, Some(password.expose()))
            }
        }
    }
}

/// Answers `challenge` with the credentials of `connection`.
pub(super) async fn answer(
    challenge: &Challenge,
    connection: &Connection,
) -> Result<Authorization, Failure> {
    match (challenge, &connection.credentials) {
        (_, Credentials::RegistryToken(token)) => bearer(token.clone(), connection),
        (Challenge::Basic, Credentials::Password { username, password }) => {
            Ok(Authorization::Basic {
                username: username.clone(),
                password: password.clone(),
            })
        }
        (Challenge::Basic, _) => Err(connection.denied().into()),
        (Challenge::Bearer { realm, service }, _) => {
            request_token(realm, service.as_deref(), connection).await
        }
    }
}

async fn request_token(
    realm: &Url,
    service: Option<&str>,
    connection: &Connection,
) -> Result<Authorization, Failure> {
    let is_protected = realm.scheme() == "https" || !connection.uses_tls();
    if !is_protected {
        let error = RegistryError::InsecureRealm {
            registry: connection.registry().to_owned(),
            realm: quote(realm.as_str()),
        };
        return Err(error.into());
    }
    let mut response = connection
        .send(token_request(realm, service, connection))
        .await?;
    // Some services know the form of OAuth2 only (RFC 6749 section 4.3).
    if matches!(response.status().as_u16(), 404 | 405)
        && let Credentials::Password { username, password } = &connection.credentials
        && connection.refresh_token().is_none()
    {
        let grant = [
            ("grant_type", "password"),
            ("username", username),
            ("password", password.expose()),
        ];
        let request = oauth_request(realm, service, connection, &grant);
        response = connection.send(request).await?;
    }
    let status = response.status();
    if !status.is_success() {
        let missing = || connection.answer("its token service is not there".to_owned());
        return Err(match status.as_u16() {
            400 => connection.denied().into(),
            _ => connection.refusal(status, response.headers(), missing),
        });
    }
    let bytes = connection.read_bounded(response, MAX_ANSWER).await?;
    let answer: Option<TokenAnswer> = serde_json::from_slice(&bytes).ok();
    let answer =
        answer.ok_or_else(|| connection.answer("its token service sent no token".to_owned()))?;
    connection.remember_refresh_token(answer.refresh_token);
    let token = answer.token.or(answer.access_token);
    let token =
        token.ok_or_else(|| connection.answer("its token service sent no token".to_owned()))?;
    bearer(token, connection)
}

fn token_request(realm: &Url, service: Option<&str>, connection: &Connection) -> RequestBuilder {
    if let Some(token) = connection.refresh_token() {
        let grant = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token.expose()),
        ];
        return oauth_request(realm, service, connection, &grant);
    }
    let mut pairs = Vec::new();
    let scopes = scopes(connection).into_iter();
    pairs.extend(scopes.map(|scope| ("scope", Cow::Owned(scope))));
    pairs.extend(service.map(|service| ("service", Cow::Borrowed(service))));
    if let Credentials::Password { username, .. } = &connection.credentials {
        pairs.push(("account", Cow::Borrowed(username)));
        if connection.access == Access::Registry {
            // A login: what can be kept instead of the password.
            pairs.push(("offline_token", Cow::Borrowed("true")));
            pairs.push(("client_id", Cow::Borrowed(CLIENT_ID)));
        }
    }
    let mut url = realm.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    match &connection.credentials {
        Credentials::Password { username, password } => connection
            .http
            .get(url)
            .basic_auth(username, Some(password.expose())),
        _ => connection.http.get(url),
    }
}

/// The same question in the form of `OAuth2`: a form that is posted, so that no secret is in an
/// address.
fn oauth_request(
    realm: &Url,
    service: Option<&str>,
    connection: &Connection,
    grant: &[(&str, &str)],
) -> RequestBuilder {
    let mut form = realm.clone();
    form.set_query(None);
    {
        let mut pairs = form.query_pairs_mut();
        // One parameter with blanks between (RFC 6749 section 3.3).
        pairs.append_pair("scope", &scopes(connection).join(" "));
        if let Some(service) = service {
            pairs.append_pair("service", service);
        }
        if connection.access == Access::Registry {
            pairs.append_pair("access_type", "offline");
        }
        pairs.append_pair("client_id", CLIENT_ID);
        pairs.extend_pairs(grant);
    }
    connection
        .http
        .post(realm.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.query().unwrap_or_default().to_owned())
}

/// What the token is to be good for.
fn scopes(connection: &Connection) -> Vec<String> {
    let repository = &connection.endpoint.repository;
    match &connection.access {
        Access::Registry => Vec::new(),
        Access::Pull => vec![format!("repository:{repository}:pull")],
        Access::Push { from } => {
            let own = format!("repository:{repository}:pull,push");
            let others = from.iter().map(|other| format!("repository:{other}:pull"));
            std::iter::once(own).chain(others).collect()
        }
    }
}

/// A token that cannot stand in a header is refused here.
fn bearer(token: Secret, connection: &Connection) -> Result<Authorization, Failure> {
    let is_visible = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if token.expose().is_empty() || !is_visible || HeaderValue::from_str(token.expose()).is_err() {
        let error = connection.answer("its token has characters that no token has".to_owned());
        return Err(error.into());
    }
    Ok(Authorization::Bearer(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(headers: &[&str]) -> Vec<Challenge> {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(WWW_AUTHENTICATE, header.parse().unwrap());
        }
        Challenge::from_headers(&map)
    }

    #[test]
    fn challenges_of_all_headers_are_there_the_best_first() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: Url::parse(realm).unwrap(),
            service: service.map(str::to_owned),
        };
        let full =
            r#"Bearer realm="https://auth.io/token?x=1",service="r.io",scope="repository:a:pull""#;
        let expected = || bearer("https://auth.io/token?x=1", Some("r.io"));
        assert_eq!(challenge(&[full]), [expected()]);
        assert_eq!(
            challenge(&["Basic realm=\"r\"", full]),
            [expected(), Challenge::Basic]
        );
        assert_eq!(
            challenge(&["bearer REALM=\"https://a.io/\", basic realm=x"]),
            [bearer("https://a.io/", None), Challenge::Basic]
        );
        assert_eq!(
            challenge(&["Bearer realm=\"https://a.io/\", Bearer realm=\"https://b.io/\""]),
            [bearer("https://a.io/", None), bearer("https://b.io/", None)]
        );
        assert_eq!(challenge(&["basic realm=\"r\""]), [Challenge::Basic]);
        assert_eq!(
            challenge(&["Negotiate", "Basic realm=r"]),
            [Challenge::Basic]
        );
        assert_eq!(challenge(&["Bearer realm=\"not a url\""]), []);
        assert_eq!(challenge(&["Bearer", "\"\"", "realm=\"", ",,,"]), []);
        assert_eq!(challenge(&[]), []);
    }
}
