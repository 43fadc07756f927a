"""vqkit over HTTP: a server core, and on top of it the page of `vqkit studio`.

The core knows no page and no verb, so that other servers stand on it as well:

- `limits`: every bound in one record, and `Refused`, an error with a status of HTTP;
- `security`: to which address a server binds, and `Gate`, in front of every request: Host, Origin,
  token, size of bodies, slow clients, headers with the content security policy, errors without
  internals;
- `uploads`: request bodies to files, counted while they come; names of files as text alone;
- `worker`: a process that decodes and computes, with bounds of memory and time; it may crash, and
  a new one takes its place. `child` is what runs in it, `frames` what both say to one another;
- `jobs`: one queue for what takes long, with a bound, progress and cancel;
- `core`: these joined to an application: `Core`, `create_app`, `serve`;
- `api` with `batches`: `vqkit serve`, one model for programs.

`tasks` are the functions that a worker knows, each of which calls one app. The rest is the studio:
`workspace` (ids to paths, which never come from a client), `runs` (training in processes that
outlive the server) and `studio` (its routes).
"""
