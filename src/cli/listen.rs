//! Opens the listeners of the settings.

use std::net::SocketAddr;

use crate::error::{Error, Reason, Result};
use crate::gateway::Names;
use crate::gateway::listen::{Place, Socket, Sockets};
use crate::gateway::server::{Bounds, Port};
use crate::gateway::tls::Identity;
use crate::settings::{At, Listener, Listeners, Profile, Settings};

/// Reads the files for TLS, then opens the sockets.
pub(super) async fn open(settings: &Settings, sockets: &mut Sockets) -> Result<Vec<Port>> {
    let listeners = &settings.listeners;
    let identities = identities(listeners)?;
    let mut places = Vec::with_capacity(listeners.each.len());
    for listener in &listeners.each {
        places.push(match &listener.at {
            At::Tcp(host, port) => Place::Tcp(resolve(host, *port).await?),
            At::Unix(path) => Place::Unix(path.clone()),
        });
    }
    let opened = sockets.open(&places).map_err(|error| Error::new(Reason::Unsupported, error.to_string()))?;
    let each = listeners.each.iter().zip(identities).zip(opened);
    let port = |((listener, tls), socket): ((&Listener, _), Socket)| {
        let names = names(settings, &socket);
        Port { socket, tls, bounds: bounds(listener, listeners), names }
    };
    Ok(each.map(port).collect())
}

/// The files for TLS of each listener. `INVALID_VALUE` names the file that is at fault.
pub fn identities(listeners: &Listeners) -> Result<Vec<Option<Identity>>> {
    let load = |listener: &Listener| match &listener.tls {
        Some(tls) => Identity::load(&tls.certificate, &tls.key, tls.ca.as_deref()).map(Some),
        None => Ok(None),
    };
    listeners.each.iter().map(load).collect()
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| Error::new(Reason::InvalidValue, format!("host: {host} is no address: {error}")))?;
    // `localhost` is what most clients mean by it.
    addresses
        .min_by_key(SocketAddr::is_ipv6)
        .ok_or_else(|| Error::new(Reason::InvalidValue, format!("host: {host} has no address")))
}

/// In place of the Data Plane API any name will do, as it always did.
fn names(settings: &Settings, socket: &Socket) -> Names {
    let loopback = socket.address().is_some_and(|address| address.ip().to_canonical().is_loopback());
    let any = settings.profile == Profile::DropIn || settings.allowed_hosts.iter().any(|name| name == "*");
    if loopback && !any { Names::Loopback(settings.allowed_hosts.clone()) } else { Names::Any }
}

fn bounds(listener: &Listener, common: &Listeners) -> Bounds {
    let limits = &listener.limits;
    Bounds {
        connections: limits.connections,
        read: limits.read,
        write: limits.write,
        keep_alive: limits.keep_alive,
        idle: common.idle,
        max_header: common.max_header,
    }
}
