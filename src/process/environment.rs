//! The environment of HAProxy, which a candidate may read, and what of it nobody else is to see.

use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::runtime::Runtime;

/// How long HAProxy may take to tell its environment before the last one that it told is taken.
const PATIENCE: Duration = Duration::from_secs(1);

/// Values of so many bytes and more are not shown. Shorter ones stand in too many words.
const HIDDEN: usize = 8;

/// Variables that HAProxy sets for itself, anew in each process.
const OF_HAPROXY: &[&str] = &[
    "HAPROXY_BRANCH",
    "HAPROXY_CFGFILES",
    "HAPROXY_CLI",
    "HAPROXY_HTTPS_LOG_FMT",
    "HAPROXY_HTTP_CLF_LOG_FMT",
    "HAPROXY_HTTP_LOG_FMT",
    "HAPROXY_KEYLOG_BC_LOG_FMT",
    "HAPROXY_KEYLOG_FC_LOG_FMT",
    "HAPROXY_LOAD_SUCCESS",
    "HAPROXY_LOCALPEER",
    "HAPROXY_MASTER_CLI",
    "HAPROXY_MWORKER",
    "HAPROXY_MWORKER_REEXEC",
    "HAPROXY_PROCESSES",
    "HAPROXY_STARTUPLOGS_FD",
    "HAPROXY_STARTUP_VERSION",
    "HAPROXY_TCP_CLF_LOG_FMT",
    "HAPROXY_TCP_LOG_FMT",
    "NOTIFY_SOCKET",
];

/// What names of our own settings begin with. `HOST` and `PORT` stay: a configuration may mean its own.
const OF_SETTINGS: &[&str] = &[
    "BACKSTAY_",
    "CI_DATAPLANE_",
    "DATAPLANEAPI_",
    "TLS_CA_CERTIFICATE",
    "TLS_CERTIFICATE",
    "TLS_HOST",
    "TLS_PORT",
    "TLS_PRIVATE_KEY",
];

/// What names of variables for clouds and registries begin with, and the words that make them credentials.
const CLOUDS: &[&str] = &[
    "ALIBABA_",
    "ALICLOUD_",
    "ARM_",
    "AWS_",
    "AZURE_",
    "CF_",
    "CLOUDFLARE_",
    "CLOUDSDK_",
    "CONSUL_",
    "DIGITALOCEAN_",
    "GCP_",
    "GOOGLE_",
    "HCLOUD_",
    "IBMCLOUD_",
    "LINODE_",
    "NOMAD_",
    "OS_",
    "OVH_",
    "SCW_",
    "TENCENTCLOUD_",
    "VAULT_",
];
const CREDENTIALS: &[&str] = &["AUTH", "CREDENTIAL", "IDENTITY", "KEY", "PASS", "SECRET", "TOKEN"];

/// Variables of ours that HAProxy has as well, wherever it was started.
const COMMON: &[&str] = &["HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ"];

/// Variables that say where a process runs and in which language: nobody keeps a secret there.
const PLAIN: &[&str] = &["HOME", "LANG", "LC_ALL", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "TERM", "TZ", "USER"];

/// Variables of an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<(OsString, OsString)>);

impl FromIterator<(OsString, OsString)> for Variables {
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(variables: T) -> Self {
        Variables(variables.into_iter().collect())
    }
}

impl Variables {
    /// All of this process.
    pub fn ours() -> Self {
        std::env::vars_os().collect()
    }

    /// Without credentials for clouds, our own settings, and what HAProxy sets for itself.
    #[must_use]
    pub fn for_haproxy(mut self) -> Self {
        self.0.retain(|(name, _)| name.to_str().is_none_or(|name| !is_secret(name) && !OF_HAPROXY.contains(&name)));
        self
    }

    /// Those that each HAProxy has, and those that are named: `NAME` takes over the value here, `NAME=VALUE` sets it.
    #[must_use]
    pub fn named(self, wanted: &[String]) -> Self {
        let given = wanted.iter().map(|one| one.split_once('=').map_or((one.as_str(), None), |(n, v)| (n, Some(v))));
        let given: Vec<(&str, Option<&str>)> = given.collect();
        let taken = |name: &OsStr| {
            let is = |one: &str| OsStr::new(one) == name;
            given.iter().any(|(one, value)| is(one) && value.is_none())
                || (COMMON.iter().any(|one| is(one)) && !given.iter().any(|(one, _)| is(one)))
        };
        let set = given.iter().filter_map(|(name, value)| Some((OsString::from(name), OsString::from((*value)?))));
        let set: Vec<_> = set.collect();
        self.0.into_iter().filter(|(name, _)| taken(name)).chain(set).collect()
    }

    /// Names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// A text in which values stand as `${NAME}`, whole ones and their words.
    ///
    /// What the candidate itself spells out its writer knows already, so that it stays as it is.
    pub fn hide(&self, text: &str, candidate: &[u8]) -> String {
        let is_hidden =
            |word: &&str| word.len() >= HIDDEN && memchr::memmem::find(candidate, word.as_bytes()).is_none();
        let mut hidden = Vec::new();
        for (name, value) in self.iter() {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            if PLAIN.contains(&name.as_ref()) {
                continue;
            }
            let words = value.split_ascii_whitespace().chain([value.as_ref()]);
            hidden.extend(words.filter(is_hidden).map(|word| (word.to_owned(), name.clone())));
        }
        hidden.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(first) = rest.chars().next() {
            if let Some((value, name)) = hidden.iter().find(|(value, _)| rest.starts_with(value.as_str())) {
                shown.extend(["${", name, "}"]);
                rest = rest.get(value.len()..).unwrap_or_default();
            } else {
                shown.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
        shown
    }
}

fn is_secret(name: &str) -> bool {
    OF_SETTINGS.iter().any(|start| name.starts_with(start))
        || CLOUDS.iter().any(|cloud| {
            name.strip_prefix(cloud).is_some_and(|rest| CREDENTIALS.iter().any(|word| rest.contains(word)))
        })
}

/// Where HAProxy's environment is known from.
#[derive(Debug)]
pub struct Surroundings {
    runtime: Option<Runtime>,
    otherwise: Arc<Variables>,
    /// What HAProxy said last: all of its variables.
    last: Mutex<Option<Arc<Variables>>>,
}

impl Surroundings {
    /// HAProxy has these.
    pub fn known(variables: Variables) -> Self {
        Surroundings { runtime: None, otherwise: Arc::new(variables), last: Mutex::default() }
    }

    /// The running HAProxy is asked each time. While it cannot be, what it said last counts, else `otherwise`.
    pub fn asked(runtime: Runtime, otherwise: Variables) -> Self {
        Surroundings { runtime: Some(runtime), ..Surroundings::known(otherwise) }
    }

    /// The variables that a configuration would find.
    pub async fn variables(&self) -> Arc<Variables> {
        match self.told().await {
            Some(told) => Arc::new(Variables::clone(&told).for_haproxy()),
            None => Arc::clone(&self.otherwise),
        }
    }

    /// All variables whose values HAProxy may print when it loads, whoever starts it: its own, and those that it gets of
    /// us. Without those that it sets for itself.
    pub async fn printable(&self) -> Variables {
        let told = self.told().await;
        let all = told.iter().chain([&self.otherwise]).flat_map(|variables| variables.0.iter().cloned());
        all.filter(|(name, _)| name.to_str().is_none_or(|name| !OF_HAPROXY.contains(&name))).collect()
    }

    /// What HAProxy says of its environment, or said last.
    async fn told(&self) -> Option<Arc<Variables>> {
        let runtime = self.runtime.as_ref()?;
        match tokio::time::timeout(PATIENCE, runtime.environment()).await {
            Ok(Ok(told)) => {
                let told = told.into_iter().map(|(name, value)| (name.into(), value.into()));
                *self.last() = Some(Arc::new(told.collect()));
            }
            Ok(Err(error)) => tracing::debug!(%error, "haproxy does not tell its environment"),
            Err(_) => tracing::debug!("haproxy does not tell its environment in time"),
        }
        self.last().clone()
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Arc<Variables>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn names(variables: &Variables) -> Vec<&str> {
        variables.iter().map(|(name, _)| name.to_str().unwrap()).collect()
    }

    #[test]
    fn credentials_and_settings_are_not_for_haproxy() {
        let secret = [
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "AWS_SESSION_TOKEN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "CONSUL_HTTP_TOKEN",
            "CONSUL_HTTP_AUTH",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "AZURE_CLIENT_SECRET",
            "BACKSTAY_PASSWORD",
            "CI_DATAPLANE_RELOAD_DELAY_OVERRIDE",
            "TLS_PRIVATE_KEY",
            "HAPROXY_MWORKER",
            "HAPROXY_PROCESSES",
        ];
        let kept = ["AWS_REGION", "HAPROXY_STATS_PASSWORD", "PATH", "PORT", "MY_TOKEN", "CONSUL_HTTP_ADDR"];
        let all: Variables = secret.iter().chain(&kept).map(|name| (name.into(), "x".into())).collect();
        assert_eq!(names(&all.for_haproxy()), kept);
    }

    #[test]
    fn what_haproxy_has_can_be_named() {
        let ours = of(&[("PATH", "/bin"), ("A", "1"), ("B", "2"), ("TZ", "UTC")]);
        let named = ours.named(&["B".into(), "C=3=4".into(), "TZ=CET".into(), "NONE".into()]);
        assert_eq!(named, of(&[("PATH", "/bin"), ("B", "2"), ("C", "3=4"), ("TZ", "CET")]));
    }

    #[test]
    fn values_are_hidden_whole_and_by_their_words() {
        let variables = of(&[
            ("SHORT", "1234567"),
            ("KEY", "topsecret"),
            ("LONG", "topsecret-and-more"),
            ("TWO", "first-half second-half"),
            ("NAME", "${LONG}xx"),
            ("SAID", "candidate-says"),
            ("PWD", "/etc/haproxy"),
        ]);
        let candidate = b"backend candidate-says-so\n";
        for (text, shown) in [
            ("a topsecret b", "a ${KEY} b"),
            ("'topsecret-and-more'", "'${LONG}'"),
            ("xtopsecretx topsecre", "x${KEY}x topsecre"),
            ("1234567 é", "1234567 é"),
            ("second-half: first-half second-half", "${TWO}: ${TWO}"),
            ("${LONG}x", "${LONG}x"),
            ("candidate-says-so", "candidate-says-so"),
            ("/etc/haproxy/a.map", "/etc/haproxy/a.map"),
            ("", ""),
        ] {
            assert_eq!(variables.hide(text, candidate), shown);
        }
    }
}
