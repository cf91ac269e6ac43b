//! Where the configuration says that we are a peer. Pure.

use crate::document::{Document, LineKind, Section};
use crate::runtime::Address;

/// A peers section that names us, and how to reach HAProxy there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// The peers section.
    pub section: String,
    /// Where HAProxy listens for peers.
    pub address: Address,
    /// It listens with TLS.
    pub tls: bool,
    /// Names that HAProxy may have in the section, the most likely one first.
    pub remotes: Vec<String>,
    /// Other nodes take part. HAProxy does not pass on what they change but when it is asked for all entries.
    pub others: Vec<Another>,
}

/// Another node of a peers section.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Another {
    /// Its name in the section.
    pub name: String,
    /// Where it listens for peers, if that is known.
    pub address: Option<Address>,
    /// It listens with TLS.
    pub tls: bool,
}

/// The sections in which `local` is a peer. Those that we cannot join are left out: an address that is not written as one.
pub(super) fn nodes(document: &Document, local: &str, host: &str) -> Vec<Node> {
    let named = local_peer(document);
    let peers = document.sections().iter().filter(|section| section.kind() == "peers");
    peers.filter_map(|section| node(section, local, named.as_deref(), host)).collect()
}

/// HAProxy's own name as a peer, if the configuration says it.
pub(super) fn local_peer(document: &Document) -> Option<String> {
    document.sections().iter().filter(|section| section.kind() == "global").find_map(|section| {
        let words = lines(section).find(|words| words.first() == Some(&"localpeer"))?;
        words.get(1).map(|name| (*name).to_owned())
    })
}

fn node(section: &Section, local: &str, named: Option<&str>, host: &str) -> Option<Node> {
    let (mut ours, mut bound, mut others) = (false, None, Vec::new());
    let (mut bind_tls, mut server_tls) = (false, false);
    for words in lines(section) {
        match words[..] {
            ["disabled", ..] => return None,
            ["default-bind", ref rest @ ..] => bind_tls = rest.contains(&"ssl"),
            ["default-server", ref rest @ ..] => server_tls = rest.contains(&"ssl"),
            ["bind", address, ref rest @ ..] => bound = Some((address, rest.contains(&"ssl"))),
            ["peer" | "server", name, ..] if name == local => ours = true,
            ["peer" | "server", name, ref rest @ ..] => {
                others.push((name, rest.first().map(|address| (*address, rest.contains(&"ssl")))));
            }
            _ => {}
        }
    }
    if !ours {
        return None;
    }
    // HAProxy is the peer with its own name: what `localpeer` says, else that of the host.
    others.sort_by_key(|(name, _)| (Some(*name) != named, *name != host));
    let certain = others.first().is_some_and(|(name, _)| Some(*name) == named || named.is_none() && *name == host);
    let another = |(name, at): &(&str, Option<(&str, bool)>)| Another {
        name: (*name).to_owned(),
        address: at.filter(|_| certain).and_then(|(address, _)| address.parse().ok()),
        tls: at.is_some_and(|(_, tls)| tls) || server_tls,
    };
    let rest = others.iter().skip(1).map(another).collect();
    if named.is_some() {
        others.retain(|(name, _)| Some(*name) == named);
    }
    let (_, address) = others.first()?;
    let (address, tls) = bound.or(*address)?;
    Some(Node {
        section: section.name().to_owned(),
        address: address.split(',').next()?.parse().ok()?,
        tls: tls || bind_tls,
        remotes: others.into_iter().map(|(name, _)| name.to_owned()).collect(),
        others: rest,
    })
}

/// The words of each line that says something.
pub(super) fn lines(section: &Section) -> impl Iterator<Item = Vec<&str>> {
    let said = section.lines().filter(|line| line.kind() == LineKind::Content);
    said.map(|line| line.words().words).filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let nodes = nodes(&Document::parse(text.as_bytes()), "us", "host");
        let shown = |node: &Node| {
            let tls = if node.tls { " tls" } else { "" };
            let other = |other: &Another| {
                let tls = if other.tls { " tls" } else { "" };
                let address = other.address.as_ref().map(ToString::to_string).unwrap_or_default();
                format!(" +{} {address}{tls}", other.name)
            };
            let others: String = node.others.iter().map(other).collect();
            format!("{} {} {}{tls}{others}", node.section, node.address, node.remotes.join(","))
        };
        nodes.iter().map(shown).collect()
    }

    #[test]
    fn sections_that_name_us_are_found_with_the_way_to_haproxy() {
        let us = "    server us 127.0.0.1:1 # dead\n";
        assert_eq!(of(&format!("peers a\n    bind *:10001\n    server hap1\n{us}")), ["a ipv4@127.0.0.1:10001 hap1"]);
        assert_eq!(of(&format!("peers a\n    peer hap1 10.0.0.1:10001\n{us}")), ["a ipv4@10.0.0.1:10001 hap1"]);
        let two = format!("peers a\n    peer x 10.0.0.1:1\n    peer host 10.0.0.2:2\n{us}");
        assert_eq!(of(&two), ["a ipv4@10.0.0.2:2 host,x +x ipv4@10.0.0.1:1"]);
        assert_eq!(of(&format!("global\n    localpeer x\n{two}")), ["a ipv4@10.0.0.1:1 x +host ipv4@10.0.0.2:2"]);
        // Which one is ours is not certain, and so is which ones are not.
        let three = format!("peers a\n    peer x 10.0.0.1:1\n    peer y 10.0.0.2:2 ssl\n{us}");
        assert_eq!(of(&three), ["a ipv4@10.0.0.1:1 x,y +y  tls"]);
        assert_eq!(of(&format!("global\n    localpeer x\n{three}")), ["a ipv4@10.0.0.1:1 x +y ipv4@10.0.0.2:2 tls"]);
        let path =
            format!("peers a\n    bind unix@/run/p.sock mode 600\n    server hap1\n{us}\npeers b\n    server hap1\n");
        assert_eq!(of(&path), ["a /run/p.sock hap1"]);
        for tls in ["bind *:1 ssl crt x.pem\n    server hap1", "default-bind ssl crt x.pem\n    peer hap1 127.0.0.1:1"]
        {
            assert_eq!(of(&format!("peers a\n    {tls}\n{us}")), ["a ipv4@127.0.0.1:1 hap1 tls"]);
        }
        for none in [
            "peers a\n    bind *:1\n    server hap1\n".to_owned(),
            format!("peers a\n    disabled\n    bind *:1\n    server hap1\n{us}"),
            format!("peers a\n    bind \"${{ADDR}}\"\n    server hap1\n{us}"),
            format!("peers a\n    bind *:1\n{us}"),
        ] {
            assert_eq!(of(&none), Vec::<String>::new(), "{none}");
        }
    }
}
