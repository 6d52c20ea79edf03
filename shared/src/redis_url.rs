//! The forms of `redis_url`: one server, the sentinels of a master, or nodes of a cluster. Pure.
//!
//! The address of one server is left to the driver, which knows more forms of it (Unix sockets, parameters).

/// What `redis_url` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RedisUrl {
    /// One server; the driver reads the address.
    Server,
    /// A master, by its name, and the sentinels that know its address.
    Sentinel(Hosts, String),
    /// Nodes of a cluster; one that answers is enough.
    Cluster(Hosts),
}

/// Several addresses with common credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hosts {
    /// Host and port of each, at least one.
    pub hosts: Vec<(String, u16)>,
    /// Connect with TLS.
    pub tls: bool,
    /// `user:password@` as in the URL, or empty.
    credentials: String,
    /// `/<number>`, or empty.
    database: String,
}

const SENTINEL_FORM: &str = "write redis+sentinel://[user:password@]host[:port],host[:port],…/master[/db]";
const CLUSTER_FORM: &str = "write redis+cluster://[user:password@]host[:port],host[:port],…";

impl RedisUrl {
    /// Reads `redis_url`.
    ///
    /// # Errors
    /// A sentence that says what to write; it contains no password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let tls = scheme.starts_with("rediss");
        match scheme {
            "redis+sentinel" | "rediss+sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() || master.contains(['?', '/']) {
                    return Err(format!("redis_url names no master after the sentinels; {SENTINEL_FORM}"));
                }
                let database = Self::database(database, SENTINEL_FORM)?;
                let hosts = hosts_of(hosts, 26_379, SENTINEL_FORM)?;
                Ok(Self::Sentinel(Hosts::new(hosts, tls, credentials, database), master.to_owned()))
            }
            "redis+cluster" | "rediss+cluster" => {
                if !matches!(path, "" | "0") {
                    return Err(format!("redis_url: a cluster has the database 0 only; {CLUSTER_FORM}"));
                }
                let hosts = hosts_of(hosts, 6_379, CLUSTER_FORM)?;
                Ok(Self::Cluster(Hosts::new(hosts, tls, credentials, String::new())))
            }
            _ if scheme.contains("sentinel") => Err(format!("redis_url begins with {scheme}://; {SENTINEL_FORM}")),
            _ if scheme.contains("cluster") => Err(format!("redis_url begins with {scheme}://; {CLUSTER_FORM}")),
            _ if !scheme.contains("unix") && hosts.contains(',') => Err(format!(
                "redis_url names several servers; for Redis Sentinel {SENTINEL_FORM}; for Redis Cluster {CLUSTER_FORM}"
            )),
            _ => Ok(Self::Server),
        }
    }

    fn database(number: &str, form: &str) -> Result<String, String> {
        if number.is_empty() {
            return Ok(String::new());
        }
        let number: u32 = number.parse().map_err(|_| format!("redis_url: the database is not a number; {form}"))?;
        Ok(format!("/{number}"))
    }
}

impl Hosts {
    fn new(hosts: Vec<(String, u16)>, tls: bool, credentials: &str, database: String) -> Self {
        let credentials = if credentials.is_empty() { String::new() } else { format!("{credentials}@") };
        Self { hosts, tls, credentials, database }
    }

    /// The URL of one server, with the credentials and the database.
    pub fn server(&self, host: &str, port: u16) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}://{}{}{}", self.credentials, joined(host, port), self.database)
    }

    /// `host:port,host:port`.
    pub fn list(&self) -> String {
        self.hosts.iter().map(|(host, port)| joined(host, *port)).collect::<Vec<_>>().join(",")
    }
}

/// `redis_url` with a password from elsewhere.
///
/// # Errors
/// A sentence, without a password: the URL has another one.
pub(crate) fn with_password(url: &str, password: &str) -> Result<String, String> {
    let encoded: String = password
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    let both = || Err("redis_url has a password, and redis_password_file another one; remove one of them".to_owned());
    let (scheme, rest) = url.split_once("://").ok_or("redis_url is not a URL; write redis://host:port")?;
    if scheme.contains("unix") {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let given = query.split('&').find_map(|pair| pair.strip_prefix("pass="));
        return match given {
            Some(given) if given == encoded => Ok(url.to_owned()),
            Some(_) => both(),
            None if query.is_empty() => Ok(format!("{scheme}://{path}?pass={encoded}")),
            None => Ok(format!("{scheme}://{path}?{query}&pass={encoded}")),
        };
    }
    let authority = rest.find('/').map_or(rest, |at| &rest[..at]);
    let (credentials, after) = match authority.rfind('@') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => ("", rest),
    };
    let (user, given) = credentials.split_once(':').unwrap_or((credentials, ""));
    if !given.is_empty() && given != password && given != encoded {
        return both();
    }
    Ok(format!("{scheme}://{user}:{encoded}@{after}"))
}

/// `host:port`; an IPv6 address in brackets.
pub(crate) fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn hosts_of(list: &str, port: u16, form: &str) -> Result<Vec<(String, u16)>, String> {
    list.split(',').map(|entry| host_of(entry, port).ok_or_else(|| format!("redis_url: {entry:?}: {form}"))).collect()
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
fn host_of(entry: &str, port: u16) -> Option<(String, u16)> {
    let (host, rest) = match entry.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => entry.find(':').map_or((entry, ""), |at| entry.split_at(at)),
    };
    let is_named = !host.is_empty() && !host.contains([' ', '?', '/', '#']);
    let port = match rest.strip_prefix(':') {
        Some(number) => number.parse().ok().filter(|port| *port != 0)?,
        None if rest.is_empty() => port,
        None => return None,
    };
    is_named.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        for url in ["redis://h:1", "rediss://u:p,q@h:1/0", "redis+unix:///a,b", "unix:///run/redis.sock"] {
            assert_eq!(RedisUrl::parse(url), Ok(RedisUrl::Server), "{url}");
        }
        let url = "rediss+sentinel://u:p,@q@s1:26380,s2,[::1]:5/main/3";
        let RedisUrl::Sentinel(hosts, master) = RedisUrl::parse(url).unwrap() else { panic!("{url}") };
        assert_eq!((hosts.list().as_str(), master.as_str()), ("s1:26380,s2:26379,[::1]:5", "main"));
        assert_eq!(hosts.server("10.0.0.1", 6_379), "rediss://u:p,@q@10.0.0.1:6379/3");
        let RedisUrl::Cluster(hosts) = RedisUrl::parse("redis+cluster://a,b:7001").unwrap() else { panic!() };
        assert_eq!((hosts.list().as_str(), hosts.tls), ("a:6379,b:7001", false));
        assert_eq!(hosts.server("::1", 1), "redis://[::1]:1");
    }

    #[test]
    fn a_password_from_a_file_takes_its_place_in_each_form() {
        for (url, wanted) in [
            ("redis://h:1", "redis://:p%40%2F1@h:1"),
            ("rediss://u@h:1/0", "rediss://u:p%40%2F1@h:1/0"),
            ("redis://u:@h", "redis://u:p%40%2F1@h"),
            ("redis://u:p%40%2F1@h", "redis://u:p%40%2F1@h"),
            ("redis+sentinel://a,b:2/main", "redis+sentinel://:p%40%2F1@a,b:2/main"),
            ("redis+cluster://u@a,b", "redis+cluster://u:p%40%2F1@a,b"),
            ("unix:///run/r.sock", "unix:///run/r.sock?pass=p%40%2F1"),
            ("redis+unix:///run/r.sock?db=1", "redis+unix:///run/r.sock?db=1&pass=p%40%2F1"),
        ] {
            assert_eq!(with_password(url, "p@/1").as_deref(), Ok(wanted), "{url}");
        }
        for url in ["redis://u:secret@h", "unix:///r?pass=secret"] {
            let error = with_password(url, "p").unwrap_err();
            assert!(error.contains("redis_password_file") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_wrong_form_is_refused_with_the_right_one_and_without_the_password() {
        for (url, advice) in [
            ("redis://u:secret@a:1,b:2", "write redis+sentinel://"),
            ("redis://u:secret@a:1,b:2", "write redis+cluster://"),
            ("redis+sentinel://u:secret@a,b", "names no master"),
            ("redis+sentinel://u:secret@a:x/main", "\"a:x\""),
            ("redis+sentinel://u:secret@a,/main", "\"\""),
            ("redis+sentinel://u:secret@a/main/x", "not a number"),
            ("redis-sentinel://u:secret@a/main", "write redis+sentinel://"),
            ("redis+cluster://u:secret@a/1", "database 0"),
            ("redis+cluster://u:secret@a:0", "\"a:0\""),
            ("cluster://u:secret@a", "write redis+cluster://"),
        ] {
            let error = RedisUrl::parse(url).unwrap_err();
            assert!(error.contains(advice) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
