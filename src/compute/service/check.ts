// --check: whether the compute could start, one line each, without changing anything.
import { kindOf, messageOf } from '#src/lib/errors.ts';
import { type Log, silentLog } from '#src/lib/log.ts';
import type { RpcTransport } from '#src/messaging/types.ts';
import { createConductor, pingConductor } from '#src/nova/conductor.ts';
import { RequestContext } from '#src/nova/context.ts';
import { createSession } from '#src/openstack/service.ts';
import type { VirtDriver } from '#drivers/virt/driver.ts';
import type { ComputeConfig } from '../config/config.ts';
import { findService } from '../records.ts';
import { connectBroker, connectEngine, connectOpenStack } from './connect.ts';
import { readNodeUuid } from './identity.ts';

const LIMIT_MS = 15_000;
const NO_IMAGE = '00000000-0000-4000-8000-000000000000';

interface Check {
  readonly name: string;
  /** Says what was found; rejects with what is wrong. */
  readonly run: (signal: AbortSignal) => Promise<string>;
}

/** True when everything needed answers. */
export async function checkCompute(
  config: ComputeConfig,
  print: (line: string) => void,
  limitMs = LIMIT_MS,
): Promise<boolean> {
  const reasons = new BrokerReasons();
  const transport = connectBroker(config, reasons);
  const checks = [
    ...brokerChecks(config, { transport, reasons, limitMs }),
    ...openStackChecks(config),
    engineCheck(config),
  ];
  print(line('ok', 'configuration', `host ${config.host}, driver ${config.computeDriver}, my_ip ${config.myIp}`));
  let isGood = true;
  for (const { name, run } of checks) {
    try {
      print(line('ok', name, await run(AbortSignal.timeout(limitMs))));
    } catch (error) {
      isGood = false;
      print(line('FAIL', name, messageOf(error)));
    }
  }
  await transport.close();
  return isGood;
}

function line(result: string, name: string, text: string): string {
  return `${result.padEnd(4)} ${name.padEnd(14)} ${text}`;
}

/** Remembers why the broker cannot be reached: the transport itself goes on trying. */
class BrokerReasons implements Log {
  last: string | undefined;

  debug(): void {}
  info(): void {}

  warn(message: string, fields?: Readonly<Record<string, unknown>>): void {
    const reason = fields?.['error'] === undefined ? fields?.['reason'] : messageOf(fields['error']);
    this.last = typeof reason === 'string' ? `${message}: ${reason}` : message;
  }

  error(message: string, fields?: Readonly<Record<string, unknown>>): void {
    this.warn(message, fields);
  }
}

interface Broker {
  readonly transport: RpcTransport;
  readonly reasons: BrokerReasons;
  readonly limitMs: number;
}

function brokerChecks(config: ComputeConfig, { transport, reasons, limitMs }: Broker): readonly Check[] {
  const context = RequestContext.admin();
  const rpc = transport.client({ timeoutMs: limitMs });
  let answers = false;
  const explained = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      throw reasons.last === undefined ? error : new Error(reasons.last, { cause: error });
    }
  };
  return [
    {
      name: 'conductor',
      async run(signal) {
        await explained(pingConductor(rpc, context, { timeoutMs: limitMs, signal }));
        answers = true;
        return 'the message broker works, nova-conductor answers';
      },
    },
    {
      name: 'identity',
      async run() {
        const uuid = await readNodeUuid(config);
        if (!answers) throw new Error(`without nova-conductor it is not known whether ${config.host} is a new host`);
        const service = await explained(findService({ conductor: createConductor(rpc), context }, config.host));
        if (!service) return `a new host for Nova${uuid === undefined ? '' : `, compute_id ${uuid}`}`;
        if (uuid !== undefined) return `known to Nova with version ${service.get('version')}, compute_id ${uuid}`;
        if (service.get('version') < 65) return 'known to Nova; compute_id will be taken from its compute node';
        throw new Error(`Nova knows ${config.host}, but its compute_id file is lost: put it into ${config.statePath}`);
      },
    },
  ];
}

function openStackChecks(config: ComputeConfig): readonly Check[] {
  const { placement, neutron, glance } = connectOpenStack(config);
  const credentials = { kind: 'service', requestId: RequestContext.admin().requestId } as const;
  return [
    {
      name: 'keystone',
      async run(signal) {
        const session = createSession(config.placement);
        if (!session) throw new Error('[placement] has no auth_type');
        const { roles } = await session.getToken(signal);
        return `gives a token for [placement], roles ${roles.join(', ')}`;
      },
    },
    {
      name: 'placement',
      async run(signal) {
        await placement.knownTraits(['COMPUTE_NODE'], signal);
        return 'answers';
      },
    },
    {
      name: 'neutron',
      async run(signal) {
        const extensions = await neutron.extensions(credentials, signal);
        const binding = extensions.has('binding-extended') ? '' : ', without binding-extended';
        return `answers, ${extensions.size} extensions${binding}`;
      },
    },
    {
      name: 'glance',
      async run(signal) {
        await glance.getImage(credentials, NO_IMAGE, signal).catch((error: unknown) => {
          if (kindOf(error) !== 'not_found') throw error;
        });
        return 'answers';
      },
    },
  ];
}

function engineCheck(config: ComputeConfig): Check {
  return {
    name: 'engine',
    async run(signal) {
      const virt = await connectEngine(config, silentLog);
      try {
        return await describeEngine(virt, signal);
      } finally {
        await virt.stop();
      }
    },
  };
}

async function describeEngine(virt: VirtDriver, signal: AbortSignal): Promise<string> {
  await virt.start(signal);
  const { vcpus, memoryMib, diskGib, hypervisorVersion } = await virt.hostFacts(signal);
  const guests = await virt.listInstances(signal);
  const offers = `${vcpus} CPUs, ${memoryMib} MiB, ${diskGib} GiB`;
  return `${virt.info.hypervisorType} ${hypervisorVersion} offers ${offers}; ${guests.length} instances of Nova`;
}
