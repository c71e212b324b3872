// Sitting at the console of containers, with the stock client and with the raw API.
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { StockClient } from './stock-client.ts';

const LIMIT_MS = 60_000;
/** Its init is a shell that sits at the console. */
const SHELL = { config: { 'raw.lxc': 'lxc.init.cmd = /bin/sh -i' } };

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'script'] }, 'the console of containers', () => {
  let daemon: TestDaemon;
  let client: StockClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    client = await StockClient.for(daemon);
    await daemon.addImage();
    await daemon.launch('con1', SHELL);
    await daemon.launch('con2');
    await daemon.ready('con2');
  }, LIMIT_MS);
  afterEach(() => {
    for (const session of open.splice(0)) void session.end();
  });
  afterAll(() => daemon[Symbol.asyncDispose](), LIMIT_MS);

  const until = <T>(look: () => T | undefined | Promise<T | undefined>) => poll(look, 20, AbortSignal.timeout(20_000));
  const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

  const open: Session[] = [];

  /** A session by the raw API. */
  class Session {
    readonly operation: string;
    readonly data: WebSocket;
    readonly control: WebSocket;
    text = '';

    private constructor(operation: string, data: WebSocket, control: WebSocket) {
      this.operation = operation;
      this.data = data;
      this.control = control;
      data.on('message', (message: Buffer) => (this.text += message.toString('latin1')));
    }

    static async open(name: string, body: object = {}): Promise<Session> {
      const started = await daemon.call('POST', `/1.0/instances/${name}/console`, body);
      if (started.type !== 'async') throw new Error(`${started.status} ${started.error}`);
      const fds = started.metadata.metadata.fds as Record<string, string>;
      expect(Object.keys(fds)).toEqual(['0', 'control']);
      const [data, control] = ['0', 'control'].map(
        (fd) => new WebSocket(`ws+unix://${daemon.socketPath}:${started.operation}/websocket?secret=${fds[fd]}`),
      ) as [WebSocket, WebSocket];
      const session = new Session(started.operation, data, control);
      open.push(session);
      await Promise.all([once(data, 'open'), once(control, 'open')]);
      return session;
    }

    send(text: string): void {
      this.data.send(Buffer.from(text));
    }

    async says(text: string): Promise<void> {
      await until(() => (this.text.includes(text) ? true : undefined)).catch(() => {
        throw new Error(`not "${text}" but ${JSON.stringify(this.text.slice(-500))}`);
      });
    }

    async end(): Promise<{ status_code: number; err: string }> {
      this.data.close();
      this.control.close();
      return (await daemon.call('GET', `${this.operation}/wait?timeout=10`)).metadata;
    }
  }

  /** A session that answers: it is connected before the first word. */
  async function atShell(body: object = {}): Promise<Session> {
    const session = await Session.open('con1', body);
    session.send('echo at$((40+2))\n');
    await session.says('at42');
    return session;
  }

  it('serves the stock client, tells the terminal its size, and is left by ctrl-a q', async () => {
    const child = client.command('script', '-qec', 'stty rows 31 cols 97; lxc console con1', '/dev/null');
    let output = '';
    child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const closed = once(child, 'close');
    await until(() => (output.includes('To detach from the console') ? true : undefined));

    child.stdin?.write('stty size; echo a$((40+2))b\n');
    await until(() => (output.includes('a42b') ? true : undefined));
    // As people type: the client looks for its keys only in what comes alone.
    for (const key of ['\u0001', 'q']) {
      await sleep(500);
      child.stdin?.write(key);
    }

    expect((await closed)[0]).toBe(0);
    expect(output).toContain('31 97');
    await daemon.seen('instance-console');
    await until(async () => ((await daemon.call('GET', '/1.0/operations')).metadata.running ? undefined : true));
    expect(await client.run('console', 'con1', '--show-log')).toContain('a42b');
  });

  it('hands on escape sequences and binary bytes as they are, and keeps them in the log', async () => {
    const session = await atShell();

    session.send("printf '\\033[31mred\\033[0m\\377\\200<e''nd>'\n");
    await session.says('<end>');

    expect(session.text).toContain('\u001b[31mred\u001b[0m\u00ff\u0080<end>');
    expect((await session.end()).status_code).toBe(200);
    expect(await daemon.consoleLog('con1')).toContain('\u001b[31mred\u001b[0m');
  });

  it('changes the size while somebody sits there', async () => {
    const session = await atShell({ width: 80, height: 24 });
    session.send('stty size\n');
    await session.says('24 80');

    session.control.send(JSON.stringify({ command: 'window-resize', args: { width: '132', height: '50' } }));
    session.control.send(JSON.stringify({ command: 'signal', signal: 15 })); // for commands only

    await until(() => {
      session.send('stty size\n');
      return session.text.includes('50 132') ? true : undefined;
    });
    await session.end();
  });

  it('is for one at a time, who can be put out', async () => {
    const first = await atShell();
    await expect(Session.open('con1')).rejects.toThrow('400 This console is already connected');
    const put = once(first.data, 'close');

    const second = await atShell({ force: true });

    await put;
    const { metadata } = await daemon.call('GET', `${first.operation}/wait?timeout=10`);
    expect([metadata.status_code, metadata.err]).toEqual([400, 'The console was taken over by another client']);
    await expect(Session.open('con1')).rejects.toThrow('already connected');
    await second.end();
    await (await atShell()).end();
  });

  it('never makes the container wait for a reader', async () => {
    const session = await atShell();
    session.data.pause();

    session.send(
      'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); printf "%01000d" $i; done; echo; echo done > /tmp/flooded\n',
    );

    const flooded = () => daemon.call('GET', '/1.0/instances/con1/files?path=/tmp/flooded');
    await until(async () => ((await flooded()).text === 'done\n' ? true : undefined));
    expect((await daemon.state('con1')).status).toBe('Running');
    session.data.resume();
    await until(() => {
      session.send('echo x$((20+3))y\n');
      return session.text.includes('x23y') ? true : undefined;
    });
    await session.end();
  });

  it('never makes the container’s monitor wait for a program that does not read', async () => {
    const session = await Session.open('con2');
    await session.says('tick');
    for (let count = 0; count < 200; count++) session.send(`${'typed '.repeat(150)}\n`);
    await sleep(500);

    const seen = session.text.length;
    await until(() => (session.text.slice(seen).includes('tick') ? true : undefined));

    expect((await daemon.state('con2')).status).toBe('Running');
    await session.end();
    await (await Session.open('con2')).end();
  });

  it('ends with the container, and says so', async () => {
    const session = await Session.open('con2');
    await session.says('tick');
    const closed = once(session.data, 'close');

    await daemon.operate('PUT', '/1.0/instances/con2/state', { action: 'stop', timeout: 20 });

    await closed;
    expect(session.text).toMatch(/power off[^]*\n\r$/);
    expect((await session.end()).status_code).toBe(200);
    await expect(Session.open('con2')).rejects.toThrow('400 Instance is not running');
    await daemon.operate('PUT', '/1.0/instances/con2/state', { action: 'start' });
  });

  it('refuses what is no console', async () => {
    await expect(Session.open('con1', { type: 'vga' })).rejects.toThrow(
      '400 VGA console is only supported by virtual machines',
    );
    await expect(Session.open('con1', { type: 'tty' })).rejects.toThrow('400 Unknown console type "tty"');
    await expect(Session.open('none')).rejects.toThrow('404 Instance not found');
    await client.run('pause', 'con2');
    await expect(Session.open('con2')).rejects.toThrow('400 Instance is frozen');
    await client.run('start', 'con2');
  });

  it('lets go when the client never connects, and when its operation is cancelled', async () => {
    await daemon.call('POST', '/1.0/instances/con1/console', {});
    await expect(Session.open('con1')).rejects.toThrow('already connected');
    const session = await until(() => Session.open('con1').catch(() => undefined));

    await daemon.call('DELETE', session.operation);

    await once(session.data, 'close');
    await (await atShell()).end();
  });

  it('survives the daemon, which survives nothing of it', async () => {
    const session = await atShell();
    session.send('(sleep 1; echo still$((6*7))) & echo be$((1+1))gun\n');
    await session.says('be2gun');
    const closed = once(session.data, 'close');

    await daemon.kill();

    await closed;
    await sleep(1500);
    await daemon.boot();
    expect((await daemon.consoleLog('con1')).slice(-2000)).toContain('still42');
    await (await atShell()).end();
  });

  it('clears the log under whoever reads it', async () => {
    const session = await atShell();

    expect((await daemon.call('DELETE', '/1.0/instances/con1/console')).status).toBe(200);
    session.send('echo after$((1+1))\n');
    await session.says('after2');

    expect(await daemon.consoleLog('con1')).not.toContain('at42');
    await session.end();
  });
});
