// Messages to a compute that mean nothing, made of recorded ones: the same in every run.
import { deflateSync } from 'node:zlib';
import { wrap } from '#test/fakes/fake-broker.ts';
import { recordedMessages } from '../nova/recordings.ts';

type Json = Readonly<Record<string, any>>;

export interface Malformed {
  readonly content: Buffer;
  readonly options?: Record<string, unknown>;
  /** That a caller is to be answered with a failure. */
  readonly isAnswered: boolean;
}

/** Mulberry32: the same messages in every run. */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) % below;
  };
}

export const originals = recordedMessages
  .filter(({ routingKey, message }) => routingKey.startsWith('compute.') && 'method' in message)
  .map(({ message }) => message as Json)
  // what is refused whatever it is given tells Nova so
  .filter(({ method, args }) => method !== 'live_migration' && args?.instance?.['nova_object.name'] === 'Instance');

const NO_INSTANCE = [null, undefined, 7, true, 'instance', [], {}, [{}], { 'nova_object.name': 'Instance' }];
const NAMES = ['', '__proto__', 'constructor', 'toString', 'hasOwnProperty', '_build', 'build', 7, null, {}, []];
const VERSIONS = ['', '0', '7.0', '5.99', '6.99', '99999999999.0', '0x6', '-6.0', '6.', 'six', '1.0'];
const DATA = [null, 7, 'x', [], { uuid: null }, { uuid: 7 }, { uuid: '' }, { uuid: '../../../etc' }, { uuid: {} }];

/** Each takes a recorded message and makes one of it that means nothing. */
const MUTATIONS: readonly ((message: Json, random: (below: number) => number) => Malformed)[] = [
  (message, random) => {
    const whole = wrap(message);
    return { content: whole.subarray(0, random(whole.length - 1)), isAnswered: false };
  },
  (message, random) => {
    const whole = wrap(message);
    const noise = Buffer.from(Array.from({ length: 1 + random(40) }, () => random(256)));
    return { content: Buffer.concat([Buffer.from([0xff]), noise, whole]), isAnswered: false };
  },
  (message, random) => {
    const { length, [random(length)]: type } = ['text/plain', 'application/x-python-serialize', 'application/data', ''];
    return { content: wrap(message), options: { contentType: type }, isAnswered: false };
  },
  (message, random) => {
    const headers = { compression: ['application/x-gzip', 'bzip2', 'zstd', 7, '__proto__'][random(5)] };
    return { content: wrap(message), options: { headers }, isAnswered: false };
  },
  (message, random) => {
    const inner = [7, null, true, '[]', '"text"', 'null', '{', '', JSON.stringify([message])][random(9)];
    return { content: json({ 'oslo.version': '2.0', 'oslo.message': inner }), isAnswered: false };
  },
  (message, random) => {
    const version = ['1.0', '3.0', '2.99', 2, {}, 'two', ''][random(7)];
    return { content: json({ 'oslo.version': version, 'oslo.message': JSON.stringify(message) }), isAnswered: false };
  },
  (message, random) => changed(message, { method: NAMES[random(NAMES.length)] }),
  (message, random) => changed(message, { version: VERSIONS[random(VERSIONS.length)] }),
  (message, random) => changed(message, { namespace: ['', 'compute_task', '__proto__', 'baseapi'][random(4)] }),
  (message, random) => changed(message, { args: [null, undefined, 7, 'args', [], [message['args']]][random(6)] }),
  (message, random) => withInstance(message, NO_INSTANCE[random(NO_INSTANCE.length)]),
  (message, random) => {
    const name = ['InstanceList', 'Migration', 'Nothing', '__proto__', '', 7, null][random(7)];
    return withInstance(message, { ...message['args'].instance, 'nova_object.name': name });
  },
  (message, random) => {
    const version = ['1.0', '3.7', '', 'x', 7, null][random(6)];
    return withInstance(message, { ...message['args'].instance, 'nova_object.version': version });
  },
  (message, random) =>
    withInstance(message, { ...message['args'].instance, 'nova_object.data': DATA[random(DATA.length)] }),
  (message, random) => {
    const depth = 5000 + random(5000);
    const deep = `${'['.repeat(depth)}${']'.repeat(depth)}`;
    const content = json({ 'oslo.version': '2.0', 'oslo.message': `{"method":${deep},"args":{}}` });
    return { content, isAnswered: false };
  },
  (message) => changed(message, { args: {} }),
  (message, random) => {
    const present = CHECKED.filter((name) => message['args'][name] !== undefined && message['args'][name] !== null);
    const name = present[random(Math.max(1, present.length))] ?? 'instance';
    const args = { ...message['args'], [name]: wrongFor(message['args'][name], random) };
    return changed(message, { args });
  },
  (message, random) => {
    // what it unpacks to is no JSON
    const content = deflateSync(Buffer.alloc(1 + random(1 << 20), ' '));
    return { content, options: { headers: { compression: 'application/x-gzip' } }, isAnswered: false };
  },
  (message, random) => {
    const name = `x${'y'.repeat(1 << (10 + random(8)))}`;
    return changed(message, { method: name, args: { ...message['args'], [name]: name } });
  },
];

/** Of many methods; each checks those that it has. */
const CHECKED = [
  'clean_shutdown',
  'bdm',
  'bdms',
  'migration',
  'flavor',
  'image_id',
  'requested_networks',
  'block_device_mapping',
  'reboot_type',
  'volume_id',
  'new_pass',
];

/** Neither what it is, nor anything like it. */
function wrongFor(value: unknown, random: (below: number) => number): unknown {
  const { length } = WRONG;
  const wrong = WRONG[random(length)];
  return typeof wrong === typeof value ? 7.5 : wrong;
}

const WRONG = ['text', true, [[{}]]];

/** Packed to a thousandth of what it is, which is more than any message may be. */
export function bomb(): Malformed {
  const content = deflateSync(Buffer.alloc(130 << 20), { level: 1 });
  return { content, options: { headers: { compression: 'application/x-gzip' } }, isAnswered: false };
}

export interface Ids {
  readonly replies: string;
  readonly run: string;
}

/** The message of that number. */
export function malformed(index: number, random: (below: number) => number, { replies, run }: Ids): Malformed {
  const original = originals[random(originals.length)] ?? {};
  const ids = { _unique_id: `unique-${run}-${index}`, _msg_id: `msg-${index}`, _reply_q: replies, _timeout: null };
  const made = MUTATIONS[index % MUTATIONS.length]?.({ ...original, ...ids }, random);
  if (!made) throw new Error('no mutation');
  return made;
}

const DEEP: readonly unknown[] = [
  null,
  7,
  -1.5,
  true,
  '',
  'text',
  [],
  [[]],
  {},
  { 'nova_object.name': 'Nothing' },
  'x'.repeat(70_000),
];

/** One value somewhere in the arguments is of another type. Much of that is read by no operation, so it may be executed all the same. */
export function withOneWrongValue(message: Json, random: (below: number) => number): Json {
  const copy = structuredClone(message) as Record<string, any>;
  let place = copy['args'];
  for (let depth = 0; ; depth += 1) {
    const keys = Object.keys(place);
    const key = keys[random(keys.length)];
    if (key === undefined) return copy;
    const value = place[key];
    const isDeep = typeof value === 'object' && value !== null && Object.keys(value).length > 0;
    if (!isDeep || (depth > 2 && random(4) === 0)) {
      place[key] = DEEP[random(DEEP.length)];
      return copy;
    }
    place = value;
  }
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function changed(message: Json, fields: Json): Malformed {
  return { content: wrap({ ...message, ...fields }), isAnswered: true };
}

function withInstance(message: Json, instance: unknown): Malformed {
  return changed(message, { args: { ...message['args'], instance } });
}
