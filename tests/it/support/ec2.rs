//! A server that imitates the API of EC2, and the metadata service of an instance.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

use super::serve::serve;

/// Instances in an answer.
const PAGE: usize = 2;

/// An instance: its private address, its state, its tags.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) address: &'static str,
    pub(crate) state: &'static str,
    pub(crate) tags: &'static [(&'static str, &'static str)],
}

/// A running server; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Ec2 {
    pub(crate) address: SocketAddr,
    machines: Arc<Mutex<Vec<Machine>>>,
    broken: Arc<Mutex<bool>>,
    questions: Arc<Mutex<Vec<Question>>>,
}

/// What it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) authorization: String,
    pub(crate) token: String,
    pub(crate) form: BTreeMap<String, String>,
}

impl Ec2 {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let ec2 = Ec2 { address, machines: Arc::default(), broken: Arc::default(), questions: Arc::default() };
        let server = ec2.clone();
        tokio::spawn(serve(listener, move |request| {
            let server = server.clone();
            async move { server.answer(request).await }
        }));
        ec2
    }

    /// From now on these instances are there.
    pub(crate) fn set(&self, machines: &[Machine]) {
        *self.machines.lock().unwrap() = machines.to_vec();
    }

    /// Whether every question is refused.
    pub(crate) fn break_down(&self, broken: bool) {
        *self.broken.lock().unwrap() = broken;
    }

    /// What it was asked until now.
    pub(crate) fn questions(&self) -> Vec<Question> {
        self.questions.lock().unwrap().clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let header = |name: &str| request.headers().get(name).map_or("", |v| v.to_str().unwrap_or_default()).to_owned();
        let (authorization, token) = (header("authorization"), header("x-amz-security-token"));
        let session = header("x-aws-ec2-metadata-token");
        let path = request.uri().path().to_owned();
        if path.starts_with("/latest/") {
            return metadata(request.method().as_str(), &path, &session);
        }
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let text = String::from_utf8_lossy(&body).into_owned();
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        let form: BTreeMap<String, String> = pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
        self.questions.lock().unwrap().push(Question {
            authorization: authorization.clone(),
            token,
            form: form.clone(),
        });
        if *self.broken.lock().unwrap() || !authorization.starts_with("AWS4-HMAC-SHA256 Credential=") {
            let text = format!(
                "<Response><Errors><Error><Code>AuthFailure</Code><Message>not for s3cret key</Message></Error></Errors>\
                 <RequestID>{}</RequestID></Response>",
                form.len()
            );
            let mut response = Response::new(Full::from(text));
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            return response;
        }
        assert_eq!((form["Action"].as_str(), form["Version"].as_str()), ("DescribeInstances", "2016-11-15"));
        let machines = self.machines.lock().unwrap().clone();
        let fitting: Vec<_> = machines.into_iter().filter(|machine| fits(machine, &form)).collect();
        let start: usize = form.get("NextToken").map_or(0, |token| token.parse().expect("a token of ours"));
        let mut out = "<DescribeInstancesResponse xmlns=\"urn:ec2\"><reservationSet>".to_owned();
        for machine in fitting.iter().skip(start).take(PAGE) {
            write!(
                out,
                "<item><instancesSet><item><instanceId>i-{0}</instanceId><instanceState><name>{1}</name></instanceState>\
                 <privateIpAddress>{0}</privateIpAddress><tagSet>",
                machine.address, machine.state
            )
            .unwrap();
            for (key, value) in machine.tags {
                write!(out, "<item><key>{key}</key><value>{value}</value></item>").unwrap();
            }
            out.push_str("</tagSet></item></instancesSet></item>");
        }
        out.push_str("</reservationSet>");
        if fitting.len() > start + PAGE {
            write!(out, "<nextToken>{}</nextToken>", start + PAGE).unwrap();
        }
        out.push_str("</DescribeInstancesResponse>");
        Response::new(Full::from(out))
    }
}

/// Whether an instance fits all filters of a question.
fn fits(machine: &Machine, form: &BTreeMap<String, String>) -> bool {
    let names = form.iter().filter(|(key, _)| key.starts_with("Filter.") && key.ends_with(".Name"));
    names.into_iter().all(|(key, name)| {
        let values = key.replace(".Name", ".Value.");
        let mut values = form.iter().filter(|(key, _)| key.starts_with(&values)).map(|(_, value)| value.as_str());
        match name.as_str() {
            "instance-state-name" => values.any(|value| value == machine.state),
            "tag-key" => values.any(|value| machine.tags.iter().any(|(key, _)| *key == value)),
            name => {
                let tag = name.strip_prefix("tag:").expect("a filter that is known");
                values.any(|value| machine.tags.contains(&(tag, value)))
            }
        }
    })
}

/// What the instance knows of its role.
fn metadata(method: &str, path: &str, session: &str) -> Response<Full<Bytes>> {
    let role =
        r#"{"AccessKeyId":"ROLEID","SecretAccessKey":"r0le","Token":"t0ken","Expiration":"2100-01-01T00:00:00Z"}"#;
    let body = match (method, path, session) {
        ("PUT", "/latest/api/token", _) => "session",
        ("GET", "/latest/meta-data/iam/security-credentials/", "session") => "role-1\n",
        ("GET", "/latest/meta-data/iam/security-credentials/role-1", "session") => role,
        _ => {
            let mut response = Response::new(Full::from("no"));
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            return response;
        }
    };
    Response::new(Full::from(body))
}
