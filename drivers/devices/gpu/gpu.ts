// type=gpu: graphics cards of this host by address, number, vendor or product: their nodes in /dev/dri, and NVIDIA's own.
import { readFile, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { attribute, entries, hardwareId, numbersOf } from '../common/hardware.ts';
import { madeNodes, makeNodes, type Node, nodeAt, OWNER_CHECKS, removeNodes } from '../common/nodes.ts';
import { checkOptions, type OptionCheck, textOf } from '../common/options.ts';
import { DevicePlaces } from '../common/places.ts';
import type { Device, DeviceContext, DeviceDriver, DeviceModule, StartedDevice } from '../driver.ts';

type Config = Readonly<Record<string, string>>;

const TYPES = ['physical', 'mdev', 'mig', 'sriov'];
const gpuType: OptionCheck = (value) => {
  if (!TYPES.includes(value))
    throw new AppError('invalid', `Invalid value "${value}" (not one of [${TYPES.join(' ')}])`);
};
const pciAddress: OptionCheck = (value) => {
  if (/^([0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i.test(value)) return;
  throw new AppError('invalid', 'Invalid PCI address');
};
const cardNumber: OptionCheck = (value) => {
  if (!/^\d{1,6}$/.test(value)) throw new AppError('invalid', `Invalid value for an integer "${value}"`);
};
const CHECKS = {
  gputype: gpuType,
  pci: pciAddress,
  id: cardNumber,
  vendorid: hardwareId,
  productid: hardwareId,
  ...OWNER_CHECKS,
};
/** Which option leaves no room for which others. */
const EXCLUSIVE = [
  ['pci', ['id', 'vendorid', 'productid']],
  ['id', ['pci', 'vendorid', 'productid']],
] as const;

function validate(config: Config): void {
  const type = textOf(config, 'gputype');
  if (type !== '' && type !== 'physical' && TYPES.includes(type)) {
    throw new AppError('invalid', `Unsupported device type: GPUs of type "${type}" are not supported by this server`);
  }
  checkOptions(config, CHECKS);
  for (const [option, others] of EXCLUSIVE) {
    if (textOf(config, option) === '') continue;
    const other = others.find((one) => textOf(config, one) !== '');
    if (other !== undefined) throw new AppError('invalid', `Cannot use "${other}" when when "${option}" is set`);
  }
}

interface Card {
  /** N of cardN. */
  readonly id: string;
  readonly pci: string;
  readonly vendor: string;
  readonly product: string;
  readonly driver: string;
  readonly nodes: readonly Node[];
}

class GpuDevice implements DeviceDriver {
  readonly info = { type: 'gpu', liveOptions: [] };
  readonly #context: DeviceContext;
  readonly #places: DevicePlaces;

  constructor(context: DeviceContext) {
    this.#context = context;
    this.#places = new DevicePlaces(context);
  }

  validate(config: Config): void {
    validate(config);
  }

  async start(device: Device): Promise<StartedDevice> {
    const cards = (await allCards(this.#context.sysfs ?? '/sys')).filter((card) => isMeant(device.config, card));
    if (cards.length === 0) throw new AppError('not_found', 'Failed to detect requested GPU device');
    const own = await Promise.all(cards.filter(({ driver }) => driver === 'nvidia').map(nvidiaNodes));
    const nodes = [...cards.flatMap((card) => card.nodes), ...own.flat()];
    const unique = [...new Map(nodes.map((node) => [node.path, node])).values()];
    return makeNodes({ host: this.#context.host, places: this.#places }, device, unique);
  }

  started(device: Device): Promise<StartedDevice> {
    return madeNodes(this.#places, device);
  }

  async stop(device: Device): Promise<void> {
    await removeNodes(this.#places, device);
  }
}

function isMeant(config: Config, card: Card): boolean {
  const pci = textOf(config, 'pci').toLowerCase();
  const wanted: readonly (readonly [string, string])[] = [
    [pci === '' || pci.length > '00:00.0'.length ? pci : `0000:${pci}`, card.pci],
    [textOf(config, 'id'), card.id],
    [textOf(config, 'vendorid'), card.vendor],
    [textOf(config, 'productid'), card.product],
  ];
  return wanted.every(([want, is]) => want === '' || want === is);
}

async function allCards(sysfs: string): Promise<readonly Card[]> {
  const root = join(sysfs, 'class/drm');
  const names = (await entries(root)).filter((name) => /^card\d+$/.test(name));
  return Promise.all(names.map((name) => readCard(root, name)));
}

async function readCard(root: string, name: string): Promise<Card> {
  const directory = await realpath(join(root, name, 'device')).catch(() => '');
  const id = async (file: string) => (await attribute(directory, file)).replace(/^0x/, '');
  const siblings = (await entries(join(directory, 'drm'))).filter((one) => /^(card|renderD|controlD)\d+$/.test(one));
  const nodes = siblings.map(async (one): Promise<readonly Node[]> => {
    const numbers = numbersOf(await attribute(join(directory, 'drm', one), 'dev'));
    return numbers ? [{ kind: 'char', ...numbers, path: `/dev/dri/${one}` }] : [];
  });
  return {
    id: name.slice('card'.length),
    pci: basename(directory),
    vendor: await id('vendor'),
    product: await id('device'),
    driver: basename(await realpath(join(directory, 'driver')).catch(() => '')),
    nodes: (await Promise.all(nodes)).flat(),
  };
}

const NVIDIA_SHARED = ['nvidiactl', 'nvidia-uvm', 'nvidia-uvm-tools', 'nvidia-modeset'];

/** The card's own node, and those that all cards share. */
async function nvidiaNodes({ pci }: Card): Promise<readonly Node[]> {
  const text = await readFile(`/proc/driver/nvidia/gpus/${pci}/information`, 'utf8').catch(() => '');
  const minor = /^Device Minor:\s*(\d+)/m.exec(text)?.[1];
  const names = [...(minor === undefined ? [] : [`nvidia${minor}`]), ...NVIDIA_SHARED];
  const found = names.map(async (name) => ({ path: `/dev/${name}`, node: await nodeAt(`/dev/${name}`) }));
  return (await Promise.all(found)).flatMap(({ path, node }) => (node ? [{ ...node, path }] : []));
}

export const gpu: DeviceModule = { type: 'gpu', create: (context) => new GpuDevice(context) };
