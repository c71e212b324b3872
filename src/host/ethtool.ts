// What drivers of network interfaces say of them and are told: SIOCETHTOOL, on a socket of its own. These calls do not wait for the network.
import { closeSync } from 'node:fs';
import koffi from 'koffi';

const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const SIOCETHTOOL = 0x8946;
const COMMAND = { driverInfo: 0x03, setTransmitChecksums: 0x17, linkSettings: 0x4c } as const;
const MAX_NAME_BYTES = 15;
/** struct ethtool_link_settings up to its masks; then three masks of so many words each as the kernel has. */
const MASKS_AT = 48;
const MAX_WORDS = 127;
const PORTS: Readonly<Record<number, string>> = {
  0: 'twisted pair',
  1: 'AUI',
  2: 'media-independent',
  3: 'fibre',
  4: 'BNC',
  5: 'direct attach',
  239: 'none',
  255: 'other',
};
const TRANSCEIVERS: Readonly<Record<number, string>> = { 0: 'internal', 1: 'external' };
/** Bits of the mask that are kinds of ports and no modes. */
const PORT_BITS: Readonly<Record<number, string>> = {
  7: 'twisted pair',
  8: 'AUI',
  9: 'media-independent',
  10: 'fibre',
  11: 'BNC',
  16: 'backplane',
};
/** Of enum ethtool_link_mode_bit_indices, those that interfaces up to 100 Gbit/s have. */
const MODE_BITS: Readonly<Record<number, string>> = {
  0: '10baseT/Half',
  1: '10baseT/Full',
  2: '100baseT/Half',
  3: '100baseT/Full',
  4: '1000baseT/Half',
  5: '1000baseT/Full',
  12: '10000baseT/Full',
  15: '2500baseX/Full',
  17: '1000baseKX/Full',
  18: '10000baseKX4/Full',
  19: '10000baseKR/Full',
  20: '10000baseR_FEC',
  21: '20000baseMLD2/Full',
  22: '20000baseKR2/Full',
  23: '40000baseKR4/Full',
  24: '40000baseCR4/Full',
  25: '40000baseSR4/Full',
  26: '40000baseLR4/Full',
  27: '56000baseKR4/Full',
  28: '56000baseCR4/Full',
  29: '56000baseSR4/Full',
  30: '56000baseLR4/Full',
  31: '25000baseCR/Full',
  32: '25000baseKR/Full',
  33: '25000baseSR/Full',
  34: '50000baseCR2/Full',
  35: '50000baseKR2/Full',
  36: '100000baseKR4/Full',
  37: '100000baseSR4/Full',
  38: '100000baseCR4/Full',
  39: '100000baseLR4_ER4/Full',
  40: '50000baseSR2/Full',
  41: '1000baseX/Full',
  42: '10000baseCR/Full',
  43: '10000baseSR/Full',
  44: '10000baseLR/Full',
  45: '10000baseLRM/Full',
  46: '10000baseER/Full',
  47: '2500baseT/Full',
  48: '5000baseT/Full',
};

const libc = koffi.load('libc.so.6');
const socketCall = libc.func('int socket(int domain, int type, int protocol)');
const ioctlCall = libc.func('ioctl', 'int', ['int', 'ulong', 'void *']);
const Request = koffi.struct('ethtool_ifreq', {
  name: koffi.array('char', 16),
  data: 'void *',
  rest: koffi.array('char', 16),
});

export interface LinkSettings {
  readonly isNegotiating: boolean;
  readonly portType: string;
  readonly transceiverType: string;
  readonly supportedModes: readonly string[];
  readonly supportedPorts: readonly string[];
}

/** One for many questions; disposed of at the end. */
export class Ethtool implements Disposable {
  readonly #socket: number;

  constructor() {
    this.#socket = Number(socketCall(AF_INET, SOCK_DGRAM_CLOEXEC, 0));
  }

  [Symbol.dispose](): void {
    if (this.#socket >= 0) closeSync(this.#socket);
  }

  /** undefined: the driver does not say. */
  linkSettings(name: string): LinkSettings | undefined {
    const question = Buffer.alloc(MASKS_AT);
    question.writeUInt32LE(COMMAND.linkSettings, 0);
    if (!this.#ask(name, question)) return undefined;
    const words = -question.readInt8(15); // the kernel's way to say how many it wants
    if (words <= 0 || words > MAX_WORDS) return undefined;
    const answer = Buffer.alloc(MASKS_AT + 3 * 4 * words);
    answer.writeUInt32LE(COMMAND.linkSettings, 0);
    answer.writeInt8(words, 15);
    if (!this.#ask(name, answer)) return undefined;
    const supported = answer.subarray(MASKS_AT, MASKS_AT + 4 * words);
    return {
      isNegotiating: answer.readUInt8(11) === 1,
      portType: PORTS[answer.readUInt8(9)] ?? '',
      transceiverType: TRANSCEIVERS[answer.readUInt8(16)] ?? '',
      supportedModes: namesOf(supported, MODE_BITS),
      supportedPorts: namesOf(supported, PORT_BITS),
    };
  }

  /** Empty: none, or the driver does not say. */
  firmwareVersion(name: string): string {
    const info = Buffer.alloc(196); // struct ethtool_drvinfo: cmd, driver[32], version[32], fw_version[32] …
    info.writeUInt32LE(COMMAND.driverInfo, 0);
    if (!this.#ask(name, info)) return '';
    const version = (info.toString('latin1', 68, 100).split('\0', 1)[0] ?? '').trim();
    return version === 'N/A' ? '' : version;
  }

  /** False: the driver cannot. */
  leaveChecksums(name: string, leaves: boolean): boolean {
    const wish = Buffer.alloc(8); // struct ethtool_value: cmd, data
    wish.writeUInt32LE(COMMAND.setTransmitChecksums, 0);
    wish.writeUInt32LE(leaves ? 1 : 0, 4);
    return this.#ask(name, wish);
  }

  #ask(name: string, data: Buffer): boolean {
    if (this.#socket < 0 || Buffer.byteLength(name) > MAX_NAME_BYTES) return false;
    const request: unknown = koffi.alloc(Request, 1);
    const memory: unknown = koffi.alloc('char', data.length);
    try {
      koffi.encode(memory, koffi.array('char', data.length), data);
      koffi.encode(request, Request, { name, data: memory, rest: '' });
      if (Number(ioctlCall(this.#socket, SIOCETHTOOL, request)) < 0) return false;
      Buffer.from(koffi.decode(memory, koffi.array('uint8_t', data.length, 'Typed')) as Uint8Array).copy(data);
      return true;
    } finally {
      koffi.free(memory);
      koffi.free(request);
    }
  }
}

function namesOf(mask: Buffer, names: Readonly<Record<number, string>>): readonly string[] {
  const isSet = (bit: number) => bit < mask.length * 8 && ((mask[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
  return Object.entries(names)
    .filter(([bit]) => isSet(Number(bit)))
    .map(([, name]) => name);
}
