//! Who we are to Keystone: what it wants to be told, made of the keys in and beside `auth`.

use serde_json::{Value as Json, json};

use super::Secret;

/// How we authenticate, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::openstack) struct Credentials {
    pub(super) method: Method,
    pub(super) scope: Scope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Method {
    Password { user: Named, password: Secret },
    ApplicationCredential { id: Option<String>, name: Option<String>, user: Option<Named>, secret: Secret },
    Token(Secret),
}

/// A user or a project: by its id, or by its name within a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    Id(String),
    Name(String, Domain),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Domain {
    Id(String),
    Name(String),
}

/// What the token shall be good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Whatever the credentials come with.
    Own,
    Project(Named),
    Domain(Domain),
    System,
}

impl Credentials {
    /// The body of `POST /v3/auth/tokens`. It has the secrets in it.
    pub(in crate::openstack) fn request(&self) -> Json {
        let (method, identity) = match &self.method {
            Method::Password { user, password } => {
                let mut user = user.json();
                user["password"] = json!(password.reveal());
                ("password", json!({ "user": user }))
            }
            Method::ApplicationCredential { id, name, user, secret } => {
                let mut credential = json!({ "secret": secret.reveal() });
                for (key, value) in [("id", id), ("name", name)] {
                    if let Some(value) = value {
                        credential[key] = json!(value);
                    }
                }
                if let Some(user) = user {
                    credential["user"] = user.json();
                }
                ("application_credential", credential)
            }
            Method::Token(token) => ("token", json!({ "id": token.reveal() })),
        };
        let mut identity = json!({ "methods": [method], method: identity });
        let scope = match &self.scope {
            Scope::Own => None,
            Scope::Project(project) => Some(json!({ "project": project.json() })),
            Scope::Domain(domain) => Some(json!({ "domain": domain.json() })),
            Scope::System => Some(json!({ "system": { "all": true } })),
        };
        let mut auth = json!({ "identity": identity.take() });
        if let Some(scope) = scope {
            auth["scope"] = scope;
        }
        json!({ "auth": auth })
    }

    /// Who it is, for messages.
    pub(in crate::openstack) fn describe(&self) -> String {
        match &self.method {
            Method::Password { user, .. } => format!("the user {}", user.describe()),
            Method::ApplicationCredential { id, name, .. } => {
                let name = name.as_ref().or(id.as_ref());
                format!("the application credential '{}'", name.map_or("", String::as_str))
            }
            Method::Token(_) => "the configured token".to_owned(),
        }
    }
}

impl Named {
    fn json(&self) -> Json {
        match self {
            Self::Id(id) => json!({ "id": id }),
            Self::Name(name, domain) => json!({ "name": name, "domain": domain.json() }),
        }
    }

    fn describe(&self) -> &str {
        match self {
            Self::Id(name) | Self::Name(name, _) => name,
        }
    }
}

impl Domain {
    fn json(&self) -> Json {
        match self {
            Self::Id(id) => json!({ "id": id }),
            Self::Name(name) => json!({ "name": name }),
        }
    }
}
