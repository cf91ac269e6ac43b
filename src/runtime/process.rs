//! The process itself and its statistics.

use std::collections::VecDeque;

use bytes::Bytes;

use super::client::Runtime;
use super::command::Command;
use super::parse::{self, Info, StatRow, StatsReader};
use crate::error::{Error, Reason, Result};

/// Kinds of rows of `show stat`, by HAProxy's bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatKind {
    /// Frontends.
    Frontend = 1,
    /// Backends.
    Backend = 2,
    /// Servers.
    Server = 4,
    /// Listeners.
    Listener = 8,
}

/// Rows of `show stat`, some at a time.
#[derive(Debug, Default)]
pub struct Stats {
    blocks: VecDeque<Bytes>,
    reader: StatsReader,
}

impl Iterator for Stats {
    type Item = Vec<StatRow>;

    fn next(&mut self) -> Option<Vec<StatRow>> {
        let block = self.blocks.pop_front()?;
        Some(block.split(|&byte| byte == b'\n').filter_map(|line| self.reader.line(line)).collect())
    }
}

impl Runtime {
    /// `show info`.
    pub async fn info(&self) -> Result<Info> {
        Ok(Info::new(self.short(Command::new("show info")).await?))
    }

    /// HAProxy's version, such as `2.6.12-1+deb12u4`.
    pub async fn version(&self) -> Result<String> {
        self.short(Command::new("show version")).await
    }

    /// `show env`: names and values of the variables of its environment. Needs a socket of level operator or admin.
    pub async fn environment(&self) -> Result<Vec<(String, String)>> {
        let mut lines = self.quick_lines(Command::new("show env")).await?;
        let mut text = Vec::new();
        while let Some(block) = lines.next_block().await? {
            text.extend_from_slice(&block);
        }
        Ok(parse::variables(&String::from_utf8_lossy(&text)))
    }

    /// Rows of `show stat`: of one proxy or all, of one kind or all. An unknown proxy gives no rows.
    ///
    /// HAProxy's lines are taken at once and made rows only when they are asked for, which takes ten times the memory.
    /// `INVALID_VALUE` when `proxy` cannot be sent.
    pub async fn stats(&self, proxy: Option<&str>, kind: Option<StatKind>) -> Result<Stats> {
        let kind = kind.map_or(-1, |kind| kind as i128);
        let command = Command::new("show stat").arg("proxy", proxy.unwrap_or("-1"))?.number(kind).number(-1);
        let mut lines = self.quick_lines(command).await?;
        let mut stats = Stats::default();
        loop {
            match lines.next_block().await {
                Ok(Some(block)) => stats.blocks.push_back(block),
                Ok(None) => return Ok(stats),
                // "No such proxy."
                Err(error) if error.reason() == Reason::ObjectNotFound => return Ok(Stats::default()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Row of one server.
    pub async fn server_stats(&self, backend: &str, server: &str) -> Result<StatRow> {
        let rows = self.stats(Some(backend), Some(StatKind::Server)).await?;
        rows.flatten()
            .find(|row| row.get("svname") == Some(server))
            .ok_or_else(|| Error::new(Reason::ObjectNotFound, format!("no server '{server}' in backend '{backend}'")))
    }
}
