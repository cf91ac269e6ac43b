//! `show servers state`.

/// What the operator asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminState {
    /// Takes traffic.
    Ready,
    /// No new sessions but persistent ones.
    Drain,
    /// No traffic and no checks.
    Maint,
}

impl AdminState {
    /// The word of `set server ... state`.
    pub fn word(self) -> &'static str {
        match self {
            AdminState::Ready => "ready",
            AdminState::Drain => "drain",
            AdminState::Maint => "maint",
        }
    }

    /// From the flags of HAProxy: maintenance (forced, inherited, for lack of an address) wins over drain.
    fn from_flags(flags: u32) -> Self {
        const MAINT: u32 = 0x01 | 0x02 | 0x20 | 0x40;
        const DRAIN: u32 = 0x08 | 0x10;
        if flags & MAINT != 0 {
            AdminState::Maint
        } else if flags & DRAIN != 0 {
            AdminState::Drain
        } else {
            AdminState::Ready
        }
    }
}

/// Whether a server is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationalState {
    /// Up, or coming up.
    Up,
    /// Down.
    Down,
    /// Still up, but takes no new sessions.
    Stopping,
}

impl OperationalState {
    /// The word of `set server ... health`.
    pub fn word(self) -> &'static str {
        match self {
            OperationalState::Up => "up",
            OperationalState::Down => "down",
            OperationalState::Stopping => "stopping",
        }
    }
}

/// A server as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Backend that holds it.
    pub backend: String,
    /// HAProxy's number of the server within its backend.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its address; none as long as a name is not resolved.
    pub address: Option<String>,
    /// Its port, none when it takes the port of the client's connection.
    pub port: Option<u16>,
    /// Name that is resolved to the address.
    pub fqdn: Option<String>,
    /// What the operator asked.
    pub admin_state: AdminState,
    /// Whether it is up.
    pub operational_state: OperationalState,
    /// Weight now, 0 to 256.
    pub weight: u32,
    /// Weight of the configuration.
    pub initial_weight: u32,
    /// Seconds since the state changed.
    pub since_change: u64,
}

/// Reads the whole answer: a format number, a header with the names of columns, a line for each server.
pub(crate) fn parse_servers(answer: &str) -> Vec<ServerState> {
    let mut columns: Vec<&str> = Vec::new();
    let mut servers = Vec::new();
    for line in answer.lines() {
        if let Some(header) = line.strip_prefix("# ") {
            columns = header.split(' ').collect();
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let get = |name: &str| {
            let at = columns.iter().position(|column| *column == name)?;
            words.get(at).copied().filter(|word| *word != "-")
        };
        let number = |name: &str| get(name).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let (Some(backend), Some(id), Some(name)) = (get("be_name"), get("srv_id"), get("srv_name")) else { continue };
        servers.push(ServerState {
            backend: backend.to_owned(),
            id: id.to_owned(),
            name: name.to_owned(),
            address: get("srv_addr").map(str::to_owned),
            port: get("srv_port").and_then(|word| word.parse().ok()).filter(|port| *port != 0),
            fqdn: get("srv_fqdn").map(str::to_owned),
            admin_state: AdminState::from_flags(number("srv_admin_state") as u32),
            operational_state: match number("srv_op_state") {
                0 => OperationalState::Down,
                3 => OperationalState::Stopping,
                _ => OperationalState::Up,
            },
            weight: number("srv_uweight") as u32,
            initial_weight: number("srv_iweight") as u32,
            since_change: number("srv_time_since_last_change"),
        });
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_their_names() {
        let servers = parse_servers(include_str!("../../../tests/data/runtime/show_servers_state.txt"));
        let shown: Vec<_> =
            servers.iter().map(|s| (s.name.as_str(), s.port, s.admin_state, s.operational_state)).collect();
        assert_eq!(
            shown,
            [
                ("s1", Some(18098), AdminState::Maint, OperationalState::Down),
                ("s2", Some(18097), AdminState::Drain, OperationalState::Up),
                ("s3", Some(18096), AdminState::Ready, OperationalState::Up),
                ("s4", None, AdminState::Ready, OperationalState::Up),
            ]
        );
        assert_eq!(servers[1].address.as_deref(), Some("127.0.0.1"));
        assert_eq!((servers[1].weight, servers[1].initial_weight), (10, 10));
        assert_eq!(servers[0].fqdn, None);
    }

    #[test]
    fn flags_of_haproxy_become_one_state() {
        for (flags, state) in [
            (0, AdminState::Ready),
            (4, AdminState::Ready),
            (8, AdminState::Drain),
            (9, AdminState::Maint),
            (32, AdminState::Maint),
        ] {
            assert_eq!(AdminState::from_flags(flags), state, "{flags}");
        }
    }
}
