import { describe, expect, it } from 'vitest';
import { covers, parseRanges, parseRights } from '#src/host/system-calls/caller.ts';
import { answerTo, parseNotification } from '#src/host/system-calls/notification.ts';
import { requestOf } from '#src/host/system-calls/requests.ts';
import { canIntercept } from '#src/host/system-calls/support.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const X86_64 = 0xc000003e;
const I386 = 0x40000003;
const AARCH64 = 0xc00000b7;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;
const NULL_DEVICE = 0x103n;

/** As liblxc sends it; a kernel that tells more has longer structures. */
function message({ more = 0, cookie = '' } = {}): Buffer {
  const [notification, answer] = [80 + more, 24 + more];
  const whole = Buffer.alloc(32 + notification + answer + cookie.length);
  whole.writeInt32LE(11, 8);
  whole.writeInt32LE(22, 12);
  whole.writeUInt16LE(notification, 16);
  whole.writeUInt16LE(answer, 18);
  whole.writeUInt16LE(64, 20);
  whole.writeBigUInt64LE(BigInt(cookie.length), 24);
  whole.writeBigUInt64LE(0x1122334455667788n, 32);
  whole.writeUInt32LE(33, 40);
  whole.writeInt32LE(133, 48);
  whole.writeUInt32LE(X86_64, 52);
  whole.writeBigUInt64LE(0x7ffc0000n, 64);
  whole.writeBigUInt64LE(BigInt(S_IFCHR | 0o666), 72);
  whole.writeBigUInt64LE(NULL_DEVICE, 80);
  whole.fill(0xff, 32 + notification, 32 + notification + answer);
  whole.write(cookie, 32 + notification + answer);
  return whole;
}

describe('messages of a monitor', () => {
  it('tell who asks for what', () => {
    expect(parseNotification(message({ cookie: 'c1' }))).toEqual({
      initPid: 22,
      pid: 33,
      number: 133,
      architecture: X86_64,
      arguments: [0x7ffc0000n, BigInt(S_IFCHR | 0o666), NULL_DEVICE, 0n, 0n, 0n],
    });
  });

  it.each([
    ['done', 0, 0],
    ['continue', 0, 1],
    [{ errno: 17 }, -17, 0],
  ] as const)('are answered with %j, without the cookie', (answer, error, flags) => {
    for (const more of [0, 16]) {
      const answered = answerTo(message({ more, cookie: 'c1' }), answer);
      const fields = answered.subarray(32 + 80 + more);

      expect(fields.length).toBe(24 + more);
      expect(fields.readBigUInt64LE(0)).toBe(0x1122334455667788n);
      expect([fields.readBigInt64LE(8), fields.readInt32LE(16), fields.readUInt32LE(20)]).toEqual([0n, error, flags]);
    }
  });

  it('are refused when they cannot be whole', () => {
    for (const length of [0, 31, 32, 111, 135]) {
      expect(() => parseNotification(message().subarray(0, length)), String(length)).toThrow(/a message of/u);
    }
    const short = message();
    short.writeUInt16LE(79, 16);
    expect(() => parseNotification(short)).toThrow('a message of another kernel or library');
  });
});

describe('held calls', () => {
  const asked = (architecture: number, number: number, ...args: readonly bigint[]) =>
    requestOf({ initPid: 1, pid: 1, architecture, number, arguments: args });
  const mode = BigInt(S_IFCHR | 0o600);
  const node = { kind: 'mknod', mode: Number(mode), device: 0x103 };

  it('are told apart by architecture', () => {
    const atPath = { ...node, directory: -100, path: 7n };
    expect(asked(X86_64, 133, 7n, mode, NULL_DEVICE)).toEqual(atPath);
    expect(asked(X86_64, 133 | 0x40000000, 7n, mode, NULL_DEVICE)).toEqual(atPath); // x32
    expect(asked(I386, 14, 7n, mode, NULL_DEVICE)).toEqual(atPath);
    const inDirectory = { ...node, directory: 5, path: 7n };
    expect(asked(X86_64, 259, 5n, 7n, mode, NULL_DEVICE)).toEqual(inDirectory);
    expect(asked(AARCH64, 33, 5n, 7n, mode, NULL_DEVICE)).toEqual(inDirectory);
    expect(asked(AARCH64, 33, 0xffffff9cn, 7n, mode, NULL_DEVICE)).toEqual(atPath);
    const attribute = { kind: 'setxattr', path: 1n, name: 2n, value: 3n, flags: 1 };
    expect(asked(X86_64, 188, 1n, 2n, 3n, 1n, 1n)).toEqual({ ...attribute, follow: true });
    expect(asked(AARCH64, 6, 1n, 2n, 3n, 1n, 1n)).toEqual({ ...attribute, follow: false });
  });

  it('are the kernel’s when they are none that may be done', () => {
    expect(asked(X86_64, 14, 7n, mode, NULL_DEVICE)).toBeUndefined(); // rt_sigprocmask here
    expect(asked(0x1234, 133, 7n, mode, NULL_DEVICE)).toBeUndefined();
    expect(asked(X86_64, 133, 7n, BigInt(S_IFBLK | 0o600), NULL_DEVICE)).toBeUndefined();
    // mem, kmsg, the console, a terminal, a disk by the number of null with a higher major
    for (const device of [0x101n, 0x10bn, 0x501n, 0x401n, 0x1000103n]) {
      expect(asked(X86_64, 133, 7n, mode, device), String(device)).toBeUndefined();
    }
  });
});

describe('the caller', () => {
  it('has the ids of its file access, an umask and capabilities', () => {
    const status = [
      'Name:\tUid: 5',
      'Umask:\t0077',
      'State:\tS (sleeping)',
      'Uid:\t100000\t100001\t100002\t100003',
      'Gid:\t200000\t200001\t200002\t200003',
      'CapPrm:\t0000000000000000',
      'CapEff:\t000001ffffffffff',
    ].join('\n');

    expect(parseRights(status)).toEqual({ uid: 100003, gid: 200003, umask: 0o077, capabilities: 0x1ffffffffffn });
  });

  it('is root for the ids of its map alone', () => {
    const ranges = parseRanges('         0     100000       1000\n      1000       1000          1\n');

    expect([99_999, 100_000, 100_999, 101_000, 1000, 1001].map((id) => covers(ranges, id))).toEqual([
      false,
      true,
      true,
      false,
      true,
      false,
    ]);
  });
});

describe('interception', () => {
  function host(actions: string, release: string): FakeHost {
    const fake = new FakeHost();
    fake.files.set('/proc/sys/kernel/seccomp/actions_avail', actions);
    fake.files.set('/proc/sys/kernel/osrelease', release);
    return fake;
  }

  it('needs a kernel that lets a held call go on', async () => {
    expect(await canIntercept(host('kill_process user_notif log allow\n', '6.1.0-18-amd64\n'))).toBe(true);
    expect(await canIntercept(host('kill_process user_notif allow\n', '5.5.0\n'))).toBe(true);
    expect(await canIntercept(host('kill_process user_notif allow\n', '5.4.0-100\n'))).toBe(false);
    expect(await canIntercept(host('kill_process errno allow\n', '6.1.0\n'))).toBe(false);
    expect(await canIntercept(new FakeHost())).toBe(false);
  });
});
