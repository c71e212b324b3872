// Every conductor request that a stock compute sent, produced by ours; and every answer to it, applied.
import { describe, expect, it } from 'vitest';
import { createComputeTask } from '#src/nova/compute-task.ts';
import { RequestContext } from '#src/nova/context.ts';
import { createConductor, pingConductor } from '#src/nova/conductor.ts';
import { fromPrimitive } from '#src/nova/objects/object.ts';
import type { ObjectName } from '#src/nova/objects/table.ts';
import { fromWire, objectsOf, toWire } from '#src/nova/objects/wire.ts';
import { withoutChanges } from '#src/nova/objects/primitive.ts';
import { createSchedulerClient } from '#src/nova/scheduler.ts';
import type { SaveOptions } from '#src/nova/types.ts';
import type { RpcClient, RpcRequest } from '#src/messaging/types.ts';
import { type Recorded, contextOf, objectsIn, recordedMessages, replyTo, sorted } from './recordings.ts';

const ours = recordedMessages.filter(({ from }) => from.startsWith('compute-'));
const answered = (method: string): Recorded[] =>
  ours.filter((request) => {
    const reply = replyTo(request);
    return request.message['method'] === method && reply !== undefined && reply['failure'] === null;
  });

/** Records what is sent and answers what the stock conductor answered. */
function replay(request: Recorded): { rpc: RpcClient; sent: RpcRequest[] } {
  const sent: RpcRequest[] = [];
  return {
    sent,
    rpc: {
      async call(out) {
        sent.push(out);
        return replyTo(request)?.['result'];
      },
      async cast(out) {
        sent.push(out);
      },
    },
  };
}

const resultOf = (request: Recorded): any => replyTo(request)?.['result'];

function contextFor({ message }: Recorded): RequestContext {
  return RequestContext.fromWire(contextOf(message));
}

function expectSameRequest(sent: RpcRequest | undefined, { message }: Recorded): void {
  expect(sent?.method).toBe(message['method']);
  expect(sent?.target.version).toBe(message['version']);
  expect(sent?.target.namespace).toBe(message['namespace']);
  expect(sent?.context).toEqual(contextOf(message));
}

describe('class methods', () => {
  const requests = answered('object_class_action_versions');

  it('are sent as recorded: name, version, manifest, arguments', async () => {
    expect(requests.length).toBeGreaterThan(300);
    for (const request of requests) {
      const args: any = request.message['args'];
      const { rpc, sent } = replay(request);

      const result = await createConductor(rpc).classMethod(contextFor(request), {
        object: args.objname as ObjectName,
        method: args.objmethod,
        args: args.args,
        kwargs: args.kwargs,
      });

      expectSameRequest(sent[0], request);
      expect(sent[0]?.target.topic).toBe(request.routingKey);
      expect(sent[0]?.args).toEqual(args);
      expect(toWire(result)).toEqual(withoutChanges(replyTo(request)?.['result']));
    }
  });
});

/** Fields of an Instance that a stock compute marks as changed although no save writes them. */
const NEVER_SAVED = ['ec2_ids', 'tags', 'pci_devices', 'services', 'security_groups', 'fault'];

describe('saves', () => {
  const requests = answered('object_action').filter(({ message }) => (message['args'] as any).objmethod === 'save');

  function optionsOf(kwargs: any): SaveOptions {
    return kwargs.expected_task_state == null ? {} : { expectedTaskState: kwargs.expected_task_state };
  }

  it('send the recorded changes with the recorded values, and no more than identity beside them', async () => {
    let saved = 0;
    for (const request of requests) {
      const { objinst, kwargs } = request.message['args'] as any;
      const { rpc, sent } = replay(request);
      const object = fromPrimitive(objinst, { keepChanges: true });
      const name = objinst['nova_object.name'];
      const wanted = (objinst['nova_object.changes'] ?? []).filter(
        (field: string) => name !== 'Instance' || !NEVER_SAVED.includes(field),
      );

      await createConductor(rpc).save(contextFor(request), object, optionsOf(kwargs));

      expect(sent.length, `${request.recording} ${name}`).toBe(wanted.length === 0 ? 0 : 1);
      if (sent.length === 0) continue;
      saved += 1;
      expectSameRequest(sent[0], request);
      const out: any = sent[0]?.args;
      expect(out.objmethod).toBe('save');
      expect(out.kwargs).toEqual(kwargs.expected_task_state == null ? {} : kwargs);
      expect(out.objinst['nova_object.version']).toBe(objinst['nova_object.version']);
      expect(out.objinst['nova_object.changes'].toSorted()).toEqual(wanted.toSorted());
      const data = out.objinst['nova_object.data'];
      expect(sorted(objinst['nova_object.data'])).toMatchObject(sorted(data) as object);
      expect(Object.keys(data)).toEqual(expect.arrayContaining(wanted));
      if (name === 'Instance') expect(Object.keys(data).length).toBeLessThanOrEqual(wanted.length + 5);
    }
    expect(saved).toBeGreaterThan(400);
  });

  it('take over the recorded updates and leave the object clean', async () => {
    for (const request of requests) {
      const { objinst } = request.message['args'] as any;
      const object: any = fromPrimitive(objinst, { keepChanges: true });
      const { rpc, sent } = replay(request);

      await createConductor(rpc).save(contextFor(request), object);

      if (sent.length === 0) continue;
      expect(object.changes()).toEqual([]);
      const [{ obj_what_changed: _changed, ...updates }] = resultOf(request);
      expect(withoutChanges(object.toPrimitive()['nova_object.data'])).toMatchObject(withoutChanges(updates) as object);
    }
  });

  it('of an unchanged object send nothing', async () => {
    for (const request of requests.slice(0, 50)) {
      const { rpc, sent } = replay(request);

      const unchanged = fromPrimitive((request.message['args'] as any).objinst);
      await createConductor(rpc).save(contextFor(request), unchanged);

      expect(sent).toEqual([]);
    }
  });
});

it('other methods of objects send the whole object, as recorded', async () => {
  const requests = answered('object_action').filter(({ message }) => (message['args'] as any).objmethod !== 'save');
  expect(requests.length).toBeGreaterThan(50);
  for (const request of requests) {
    const { objinst, objmethod, args, kwargs } = request.message['args'] as any;
    const { rpc, sent } = replay(request);
    const object = fromPrimitive(objinst, { keepChanges: true });

    const result = await createConductor(rpc).objectMethod(contextFor(request), object, {
      method: objmethod,
      args,
      kwargs,
    });

    expectSameRequest(sent[0], request);
    expect(sorted(sent[0]?.args)).toEqual(sorted(request.message['args']));
    expect(toWire(result)).toEqual(resultOf(request)[1]);
  }
});

it('the ping of a starting compute is sent as recorded', async () => {
  const requests = answered('ping');
  expect(requests.length).toBeGreaterThan(0);
  for (const request of requests) {
    const { rpc, sent } = replay(request);

    await pingConductor(rpc, contextFor(request), { timeoutMs: 10_000 });

    expectSameRequest(sent[0], request);
    expect(sent[0]?.args).toEqual(request.message['args']);
  }
});

it('builds handed back to the conductor are sent as recorded', async () => {
  const requests = ours.filter(({ message }) => message['method'] === 'build_instances');
  expect(requests.length).toBeGreaterThan(0);
  for (const request of requests) {
    const args: any = fromWire(request.message['args']);
    const { rpc, sent } = replay(request);

    await createComputeTask(rpc).buildInstances(contextFor(request), {
      instance: args.instances[0],
      image: args.image,
      filterProperties: args.filter_properties,
      adminPassword: args.admin_password,
      injectedFiles: args.injected_files,
      requestedNetworks: args.requested_networks,
      securityGroups: args.security_groups,
      requestSpec: args.request_spec,
      hostList: args.host_lists[0],
    });

    expectSameRequest(sent[0], request);
    expect(sent[0]?.args).toEqual(withoutChanges(request.message['args']));
  }
});

it('the scheduler is told as recorded', async () => {
  const requests = ours.filter(({ exchange }) => exchange === 'scheduler_fanout');
  expect(new Set(requests.map(({ message }) => message['method'])).size).toBe(3);
  for (const request of requests) {
    const wire: any = request.message['args'];
    const { rpc, sent } = replay(request);
    const scheduler = createSchedulerClient(rpc);
    const context = contextFor(request);

    if ('instance_info' in wire) {
      const instances = objectsOf(fromPrimitive(wire.instance_info) as any);
      await scheduler.updateInstanceInfo(context, wire.host_name, instances as any);
    } else if ('instance_uuids' in wire) {
      await scheduler.syncInstanceInfo(context, wire.host_name, wire.instance_uuids);
    } else {
      await scheduler.deleteInstanceInfo(context, wire.host_name, wire.instance_uuid);
    }

    expectSameRequest(sent[0], request);
    expect(sent[0]?.target).toMatchObject({ topic: 'scheduler', fanout: true });
    expect(withoutChanges(sent[0]?.args)).toEqual(withoutChanges(wire));
  }
});

it('no request carries a label above Zed’s, even when the object came from a newer cell', async () => {
  const request = answered('object_action').find(({ message }) => (message['args'] as any).objmethod === 'destroy');
  const objinst = structuredClone((request as any).message.args.objinst);
  for (const object of objectsIn(objinst)) object['nova_object.version'] = '2.99';
  for (const object of objectsIn(objinst).slice(1)) object['nova_object.version'] = '1.99';
  const { rpc, sent } = replay(request as Recorded);

  await createConductor(rpc).objectMethod(RequestContext.admin(), fromPrimitive(objinst), { method: 'destroy' });

  expect(sorted(withoutChanges(sent[0]?.args['objinst']))).toEqual(
    sorted(withoutChanges((request as any).message.args.objinst)),
  );
});
