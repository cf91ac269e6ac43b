//! What runs: this program, the machine, the processes of HAProxy.

use std::collections::HashMap;

use super::Context;
use crate::error::Result;
use crate::proto::messages;
use crate::proto::runtime as pb;
use crate::runtime::{Info, InfoValue};
use crate::schema::tables::Kind;
use crate::schema::value::{Object, Value};
use crate::schema::wire;

pub(super) async fn get(context: Context, _: pb::GetInfoRequest) -> Result<pb::GetInfoResponse> {
    let api = pb::ApiInfo { build_date: "0001-01-01T00:00:00.000Z".into(), version: context.version.into() };
    let system = if context.show_system_info { machine() } else { pb::SystemInfo::default() };
    Ok(pb::GetInfoResponse { api: Some(api), system: Some(system) })
}

/// Facts of the machine, as far as the kernel tells them.
fn machine() -> pb::SystemInfo {
    let name = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let memory = rustix::system::sysinfo();
    let unit = i64::from(memory.mem_unit);
    let bytes = |units: u64| i64::try_from(units).unwrap_or(i64::MAX).saturating_mul(unit);
    pb::SystemInfo {
        cpu_info: Some(pb::CpuInfo {
            model: line_of("/proc/cpuinfo", "model name").map(|line| line.trim().to_owned()),
            num_cpus: std::thread::available_parallelism().ok().and_then(|n| i64::try_from(n.get()).ok()),
        }),
        hostname: Some(text(name.nodename())),
        mem_info: Some(pb::MemoryInfo {
            dataplaneapi_memory: line_of("/proc/self/status", "VmRSS")
                .and_then(|line| line.split_ascii_whitespace().next()?.parse::<i64>().ok())
                .map(|kibibytes| kibibytes.saturating_mul(1024)),
            free_memory: Some(bytes(memory.freeram)),
            total_memory: Some(bytes(memory.totalram)),
        }),
        os_string: Some(format!("{} {} {}", text(name.sysname()), text(name.release()), text(name.version()))),
        time: Some(jiff::Timestamp::now().as_second()),
        uptime: Some(memory.uptime),
    }
}

/// What stands behind the colon in the first line of that name.
fn line_of(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_once(':').map(|(_, value)| value.to_owned())
}

pub(super) async fn processes(context: Context, _: pb::GetProcessInfoRequest) -> Result<pb::GetProcessInfoResponse> {
    let info = context.runtime.info().await?;
    let socket = context.runtime.addresses().first().map(ToString::to_string).unwrap_or_default();
    let item = item(&context, &info)?;
    Ok(pb::GetProcessInfoResponse {
        processes: vec![pb::ProcessInfo { error: None, info: Some(item), runtime_api: socket }],
    })
}

/// Fills the message by name: `Uptime_sec` of HAProxy is `uptime_sec` here.
fn item(context: &Context, info: &Info) -> Result<pb::ProcessInfoItem> {
    let tables = &context.schema.tables;
    let id = messages::runtime::PROCESS_INFO_ITEM;
    let places: HashMap<String, usize> =
        tables.messages[id].fields.iter().enumerate().map(|(at, field)| (key(&field.name), at)).collect();
    let mut object = Object::new();
    for (name, value) in &info.fields {
        let renamed = RENAMED.iter().find(|(theirs, _)| theirs == name).map_or(name.as_str(), |(_, ours)| ours);
        let Some(&at) = places.get(&key(renamed)) else { continue };
        match (tables.messages[id].fields[at].kind, value) {
            (Kind::Int64 | Kind::Int32, InfoValue::Int(number)) => object.set(at, Value::Int(*number)),
            // HAProxy writes a date as 2026/10/17.
            (Kind::String, InfoValue::Text(text)) if name == "Release_date" => {
                object.set(at, Value::Str(text.replace('/', "-").into()));
            }
            (Kind::String, InfoValue::Text(text)) => object.set(at, Value::Str(text.as_str().into())),
            (Kind::String, InfoValue::Int(number)) => object.set(at, Value::Str(number.to_string().into())),
            _ => {}
        }
    }
    let mut bytes = Vec::new();
    wire::encode(tables, id, &object, &mut bytes);
    prost::Message::decode(bytes.as_slice()).map_err(crate::error::Error::internal)
}

/// Values that HAProxy calls otherwise: its name, ours.
const RENAMED: [(&str, &str); 4] = [
    ("Uptime_sec", "uptime"),
    ("Nbproc", "processes"),
    ("Unstoppable Jobs", "unstoppable"),
    ("SslFrontendSessionReuse_pct", "ssl_frontend_session_reuse"),
];

/// A name without what the two spell differently.
fn key(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}
