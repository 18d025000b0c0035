//! The part of a cloud that says who logs in, and for what.

use super::Secret;
use super::auth::{Credentials, Domain, Method, Named, Scope};
use super::resolve::Reader;

/// What auth types there are, by the method that they come to.
const PASSWORD: [&str; 2] = ["password", "v3password"];
const APPLICATION_CREDENTIAL: [&str; 1] = ["v3applicationcredential"];
const TOKEN: [&str; 2] = ["token", "v3token"];

impl Reader<'_> {
    /// How to log in, and for what. Mistakes are noted.
    pub(super) fn credentials(&mut self) -> Option<Credentials> {
        let kind = self.text("auth_plugin").or_else(|| self.text("auth_type"));
        let kind = kind.unwrap_or_else(|| PASSWORD[0].to_owned());
        let secret = |text: Option<String>| text.map(Secret::new);
        let method = if PASSWORD.contains(&kind.as_str()) {
            let user = self.user();
            let password = secret(self.required_auth("password", &["password"]));
            user.zip(password).map(|(user, password)| Method::Password { user, password })
        } else if APPLICATION_CREDENTIAL.contains(&kind.as_str()) {
            let id = self.auth_text(&["application_credential_id"]);
            let name = self.auth_text(&["application_credential_name"]).filter(|_| id.is_none());
            if id.is_none() && name.is_none() {
                self.missing("auth.application_credential_id");
            }
            let secret = secret(
                self.required_auth("application_credential_secret", &["application_credential_secret"]),
            );
            let user = name.is_some().then(|| self.user());
            match user {
                Some(None) => None,
                user => secret.map(|secret| Method::ApplicationCredential {
                    id,
                    name,
                    user: user.flatten(),
                    secret,
                }),
            }
        } else if TOKEN.contains(&kind.as_str()) {
            secret(self.required_auth("token", &["token", "auth_token"])).map(Method::Token)
        } else {
            let known = [&PASSWORD[..], &APPLICATION_CREDENTIAL, &TOKEN].concat().join(", ");
            self.mistake("auth_type", &format!("'{kind}' is not known here; known are: {known}"));
            None
        };
        let scope = match &method {
            // It is bound to its project.
            Some(Method::ApplicationCredential { .. }) => Some(Scope::Own),
            _ => self.scope(),
        };
        Some(Credentials { method: method?, scope: scope? })
    }

    fn user(&mut self) -> Option<Named> {
        if let Some(id) = self.auth_text(&["user_id"]) {
            return Some(Named::Id(id));
        }
        let Some(name) = self.auth_text(&["username", "user_name"]) else {
            self.missing("auth.username");
            return None;
        };
        match self.domain_of("user") {
            Some(domain) => Some(Named::Name(name, domain)),
            None => {
                self.missing("auth.user_domain_name");
                None
            }
        }
    }

    /// The domain of a user or a project: its own, the one for everything, or the default.
    fn domain_of(&self, what: &str) -> Option<Domain> {
        [what.to_owned() + "_domain", "domain".to_owned(), "default_domain".to_owned()].iter().find_map(
            |prefix| {
                let [id, name] =
                    ["id", "name"].map(|end| self.auth_text(&[format!("{prefix}_{end}").as_str()]));
                id.map(Domain::Id).or_else(|| name.map(Domain::Name))
            },
        )
    }

    fn scope(&mut self) -> Option<Scope> {
        if let Some(id) = self.auth_text(&["tenant_id", "project_id"]) {
            return Some(Scope::Project(Named::Id(id)));
        }
        if let Some(name) = self.auth_text(&["tenant_name", "project_name"]) {
            let domain = self.domain_of("project");
            if domain.is_none() {
                self.missing("auth.project_domain_name");
            }
            return domain.map(|domain| Scope::Project(Named::Name(name, domain)));
        }
        if self.auth_text(&["system_scope"]).is_some() {
            return Some(Scope::System);
        }
        let [id, name] = ["domain_id", "domain_name"].map(|key| self.auth_text(&[key]));
        let domain = id.map(Domain::Id).or_else(|| name.map(Domain::Name));
        Some(domain.map_or(Scope::Own, Scope::Domain))
    }
}
