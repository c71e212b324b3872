// /dev/lxd in the hands of a guest that wants to know more than its own affairs, or to keep the daemon busy.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { HOSTILE_DRIVER, TestDaemon } from '../instances/daemon-support.ts';
import { HostileGuest, python, TOOLS } from '../instances/hostile-support.ts';
import { describeWith } from '../support.ts';

const LIMIT_MS = 60_000;

describeWith(
  { root: true, commands: ['lxc-start', 'busybox', 'python3'] },
  'a guest that wants to be its neighbour',
  () => {
    let daemon: TestDaemon;
    let guest: HostileGuest;

    beforeAll(async () => {
      daemon = await TestDaemon.start(HOSTILE_DRIVER);
      await daemon.addImage();
      for (const name of ['d1', 'd2']) {
        await daemon.launch(name, { config: { 'user.secret': `of ${name}` }, devices: { tools: TOOLS } });
        await daemon.ready(name);
      }
      guest = new HostileGuest(daemon, 'd1');
    });
    afterAll(() => daemon[Symbol.asyncDispose]());

    const ask = (request: string) =>
      python(
        `import socket\ns=socket.socket(socket.AF_UNIX)\ns.connect("/dev/lxd/sock")\ns.settimeout(15)\ns.sendall(${request})\nd=b""\nwhile len(d)<200000:\n  c=s.recv(65536)\n  if not c: break\n  d+=c\nprint(d.decode("latin1"))`,
      );
    const get = (path: string, headers = '') =>
      ask(`b"GET ${path} HTTP/1.1\\r\\nHost: x\\r\\n${headers}Connection: close\\r\\n\\r\\n"`);

    it.each([
      ['its own question', '/1.0/config/user.secret', ''],
      [
        'a name of the other in the headers',
        '/1.0/config/user.secret',
        'X-LXD-Instance: d2\\r\\nX-Forwarded-For: d2\\r\\n',
      ],
      ['a path that climbs', '/1.0/config/../../1.0/config/user.secret', ''],
      ['a query', '/1.0/config/user.secret?project=default&instance=d2', ''],
    ])('hears nothing of it by %s', async (_what, path, headers) => {
      const { output } = await guest.exec(get(path, headers));

      expect(output).not.toContain('of d2');
    });

    it.each([
      '/1.0/instances',
      '/1.0/instances/d2',
      '/1.0/certificates',
      '/internal/shutdown',
      '/1.0/../instances',
      '//1.0/instances',
    ])('reaches no more of the API: %s', async (path) => {
      expect((await guest.exec(get(path))).output).toMatch(/ 40[034] /u);
    });

    it.each([
      ['headers without end', 'b"GET /1.0 HTTP/1.1\\r\\n" + b"X: y\\r\\n" * 20000 + b"\\r\\n"'],
      [
        'a body without end',
        'b"POST /1.0 HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 99999999\\r\\n\\r\\n" + b"x" * 100000',
      ],
      ['what is no HTTP', 'b"\\x00\\xff\\x1b[2J" * 1000'],
      [
        'two lengths',
        'b"POST /1.0 HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 1\\r\\nTransfer-Encoding: chunked\\r\\nConnection: close\\r\\n\\r\\n0\\r\\n\\r\\n"',
      ],
    ])(
      'confuses nobody with %s',
      async (_what, request) => {
        await guest.exec(ask(request));

        expect((await daemon.call('GET', '/1.0')).status).toBe(200);
        const { output } = await new HostileGuest(daemon, 'd2').exec(get('/1.0/config/user.secret'));
        expect(output).toContain('of d2');
      },
      LIMIT_MS,
    );

    it(
      'keeps nobody out with connections that say nothing',
      async () => {
        const flood = python(
          `import socket,time\na=[]\nfor _ in range(5000):\n  s=socket.socket(socket.AF_UNIX)\n  s.setblocking(False)\n  try:\n    s.connect("/dev/lxd/sock")\n    s.send(b"GET /1.0 HTTP/1.1\\r\\nX: ")\n    a.append(s)\n  except OSError: pass\n  if len(a)>900: break\nprint(len(a))\ntime.sleep(4)`,
        );
        const flooding = guest.exec(flood);
        await poll(
          async () => ((await daemon.state('d1')).processes > 1 ? true : undefined),
          100,
          AbortSignal.timeout(10_000),
        );

        const { output } = await new HostileGuest(daemon, 'd2').exec(get('/1.0/config/user.secret'));

        expect(output).toContain('of d2');
        expect(Number((await flooding).output)).toBeGreaterThan(0);
        expect((await daemon.call('GET', '/1.0')).status).toBe(200);
      },
      LIMIT_MS,
    );
  },
);
