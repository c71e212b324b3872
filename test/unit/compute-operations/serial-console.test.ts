// Serial consoles as nova-api and nova-serialproxy use them: a URL, a port that opens when asked for, bytes both ways.
import { createServer, connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { serializeNovaFailure } from '#src/nova/exceptions.ts';
import { ComputeHarness, instanceOf } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

/** Other tests run beside these: each takes ports of its own. */
let nextPort = 21_000 + (process.pid % 3000) * 4;

function consoleHarness({ ports = 2, ttl = 600 } = {}): ComputeHarness {
  const first = nextPort;
  nextPort += ports;
  return new ComputeHarness({
    config: `[serial_console]
enabled = true
base_url = wss://cloud.example/serial
port_range = ${first}:${first + ports}
[consoleauth]
token_ttl = ${ttl}
`,
  });
}

async function running(harness: ComputeHarness): Promise<Json> {
  const instance = instanceOf();
  await harness.build(instance);
  return instanceOf(harness.row(instance));
}

const open = async (harness: ComputeHarness, instance: Json, type = 'serial'): Promise<Json> =>
  (await harness.send('get_serial_console', { instance, console_type: type })) as Json;

const validate = (harness: ComputeHarness, instance: Json, port: unknown): Promise<unknown> =>
  harness.send('validate_console_port', { instance, port: String(port), console_type: 'serial' });

/** As a proxy comes: it asks first. */
async function come(harness: ComputeHarness, instance: Json, { port }: Json): Promise<Socket> {
  expect(await validate(harness, instance, port)).toBe(true);
  return await arrive(port);
}

async function arrive(port: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port });
  await once(socket, 'connect');
  return socket;
}

async function type(socket: Socket, text: string): Promise<string> {
  let seen = '';
  const listen = (chunk: Buffer): void => {
    seen += chunk.toString('latin1');
  };
  socket.on('data', listen);
  socket.write(Buffer.from(text, 'latin1'));
  while (seen.length < text.length) await sleep(5);
  socket.off('data', listen);
  return seen;
}

/** All that comes until the other side closes. */
async function lastWords(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk) => {
    text += chunk;
  });
  await once(socket, 'close');
  return text;
}

const failureOf = async (sent: Promise<unknown>): Promise<unknown> => serializeNovaFailure(await sent.catch((e) => e));

describe('get_serial_console', () => {
  it('answers with the URL of the proxy, and has a token made for the port', async () => {
    await using harness = consoleHarness();
    const instance = await running(harness);

    const answer = await open(harness, instance);

    expect(answer).toEqual({
      host: '127.0.0.1',
      port: expect.any(Number),
      internal_access_path: null,
      token: 'token-1',
      access_url: 'wss://cloud.example/serial?token=token-1',
    });
    const [sent] = harness.plane.named('ConsoleAuthToken.authorize');
    expect(sent?.args).toEqual([600]);
    expect(sent?.changes).toEqual({
      console_type: 'serial',
      host: '127.0.0.1',
      port: answer['port'],
      internal_access_path: null,
      instance_uuid: instance['nova_object.data'].uuid,
      access_url_base: 'wss://cloud.example/serial',
    });
  });

  it('keeps the port of an instance, and gives another one another', async () => {
    await using harness = consoleHarness();
    const [one, two] = [await running(harness), await running(harness)];

    const answers = [await open(harness, one), await open(harness, one), await open(harness, two)];

    expect(answers[1]?.['port']).toBe(answers[0]?.['port']);
    expect(answers[2]?.['port']).not.toBe(answers[0]?.['port']);
  });

  it('says that all ports are taken, and finds one that is free', async () => {
    await using harness = consoleHarness({ ports: 2 });
    const [one, two] = [await running(harness), await running(harness)];
    const first = harness.services.config.console.serial.firstPort;
    const other = createServer().listen(first, '127.0.0.1');
    await once(other, 'listening');

    const { port } = await open(harness, one);
    const failure = await failureOf(open(harness, two));
    other.close();

    expect(port).toBe(first + 1);
    expect(failure).toMatchObject({ class: 'SocketPortRangeExhaustedException' });
  });

  it('is refused by type, without configuration, for a stopped guest and for one that is not here', async () => {
    await using harness = consoleHarness();
    await using disabled = new ComputeHarness();
    const instance = await running(harness);
    const absent = instanceOf({ vm_state: 'active' });
    harness.plane.add(absent);
    const other = await running(disabled);

    const failures = [
      await failureOf(open(harness, instance, 'vnc')),
      await failureOf(open(disabled, other)),
      await failureOf(open(harness, absent)),
    ];
    await harness.virt.powerOff(instance['nova_object.data'].uuid, { graceSeconds: 0 }, AbortSignal.timeout(1000));
    failures.push(await failureOf(open(harness, instance)));

    expect(failures).toMatchObject([
      { class: 'ConsoleTypeInvalid' },
      { class: 'ConsoleTypeUnavailable' },
      { class: 'InstanceNotFound' },
      { class: 'InstanceNotReady' },
    ]);
  });
});

describe('the port of a console', () => {
  it('joins the proxy to the guest, bytes as they are', async () => {
    await using harness = consoleHarness();
    const instance = await running(harness);
    const typed = '\x01q\x1d\x1b[A\x00\xff\r';

    const socket = await come(harness, instance, await open(harness, instance));

    expect(await type(socket, typed)).toBe(typed);
    socket.destroy();
  });

  it('lets nobody in who was not announced, and each announced one once', async () => {
    await using harness = consoleHarness();
    const instance = await running(harness);
    const access = await open(harness, instance);

    const stranger = await lastWords(await arrive(access['port']));
    const guest = await come(harness, instance, access);
    const second = await lastWords(await arrive(access['port']));

    expect([stranger, second]).toEqual(['', '']);
    expect(await type(guest, 'x')).toBe('x');
    guest.destroy();
  });

  it('is of one instance only', async () => {
    await using harness = consoleHarness();
    const [one, two] = [await running(harness), await running(harness)];
    const { port } = await open(harness, one);

    expect(await validate(harness, two, port)).toBe(false);
    expect(await validate(harness, one, port + 1)).toBe(false);
    expect(await validate(harness, one, `0${port}`)).toBe(false);
    expect(await validate(harness, one, port)).toBe(true);
  });

  it('gives the console to who comes last', async () => {
    await using harness = consoleHarness();
    const instance = await running(harness);
    const access = await open(harness, instance);
    const first = await come(harness, instance, access);
    await type(first, '1');
    const farewell = lastWords(first);

    const second = await come(harness, instance, access);

    expect(await type(second, '2')).toBe('2');
    expect(await farewell).toContain('another client has taken over');
    second.destroy();
  });

  it('closes when the last token is too old', async () => {
    await using harness = consoleHarness({ ttl: 1 });
    const instance = await running(harness);
    const access = await open(harness, instance);
    const uuid: string = instance['nova_object.data'].uuid;
    const consoles = harness.operations.consoles;

    await sleep(1300);

    expect(await validate(harness, instance, access['port'])).toBe(false);
    await expect(arrive(access['port'])).rejects.toThrow('ECONNREFUSED');
    await consoles.forget(uuid);
  });

  it('tells who comes to a guest that has stopped', async () => {
    await using harness = consoleHarness();
    const instance = await running(harness);
    const access = await open(harness, instance);
    await harness.virt.powerOff(instance['nova_object.data'].uuid, { graceSeconds: 0 }, AbortSignal.timeout(1000));

    const words = await lastWords(await come(harness, instance, access));

    expect(words).toContain('does not run');
  });

  it('is gone with the instance, and with the service', async () => {
    const harness = consoleHarness({ ports: 2 });
    const [one, two] = [await running(harness), await running(harness)];
    const accesses = [await open(harness, one), await open(harness, two)] as const;
    const sockets = [await come(harness, one, accesses[0]), await come(harness, two, accesses[1])] as const;
    const ends = sockets.map((socket) => lastWords(socket));

    await harness.send('terminate_instance', { instance: one });
    await ends[0];
    await expect(arrive(accesses[0]['port'])).rejects.toThrow('ECONNREFUSED');
    await harness.operations.consoles.close();
    await ends[1];

    await expect(arrive(accesses[1]['port'])).rejects.toThrow('ECONNREFUSED');
    expect(harness.plane.names).toContain('ConsoleAuthToken.clean_console_auths_for_instance');
    await harness[Symbol.asyncDispose]();
  });
});

describe('screens', () => {
  it.each(['vnc', 'spice', 'mks', 'rdp'])('%s is nothing that containers have', async (screen) => {
    await using harness = consoleHarness();
    const instance = instanceOf();
    harness.plane.add(instance);

    const sent = harness.send(`get_${screen}_console`, { instance, console_type: screen });

    expect(await failureOf(sent)).toMatchObject({ class: 'ConsoleTypeUnavailable' });
  });
});
