use std::path::Path; use std::time::Instant; use uwe::*;
fn main(){
 let refd=std::env::args().nth(1).unwrap();
 let load=|file:&str|{ std::fs::read(format!("{refd}/{file}.safetensors")).unwrap() };
 let (rb,ub)=(load("reference"),load("uwe_two_sided"));
 let (r,u)=(safetensors::SafeTensors::deserialize(&rb).unwrap(),safetensors::SafeTensors::deserialize(&ub).unwrap());
 let f=|st:&safetensors::SafeTensors,n:&str|->Vec<f32>{st.tensor(n).unwrap().data().chunks(4).map(|b|f32::from_le_bytes(b.try_into().unwrap())).collect()};
 let o=|st:&safetensors::SafeTensors,n:&str|->Vec<usize>{st.tensor(n).unwrap().data().chunks(8).map(|b|i64::from_le_bytes(b.try_into().unwrap()) as usize).collect()};
 let d=u.tensor("query_token_embeddings").unwrap().shape()[1];
 let q=TokenStates::new(f(&u,"query_token_embeddings"),o(&u,"query_offsets"),d).unwrap();
 let t=TokenStates::new(f(&u,"target_token_embeddings"),o(&u,"target_offsets"),d).unwrap();
 let c=Compute::new(1,None).unwrap();
 let check=|name:&str,want:Vec<f32>,s:Scorer|{
   let mut worst=[0f32;2];
   for (i,st) in [StateType::F32,StateType::F16].into_iter().enumerate(){
   let sp=Space::from_states(&t,(1,1),st).unwrap();
   let got=score_all(&c,&q,&sp,&Scoring{scorer:s,special_tokens:true}).unwrap();
   worst[i]=got.concat().iter().zip(&want).map(|(a,b)|(a-b).abs()).fold(0f32,f32::max);}
   println!("{name} {:.2e} f16 {:.2e}",worst[0],worst[1]);
 };
 for tau in ["0.1","0.5","1.0"]{ let temperature:f32=tau.parse().unwrap();
  for (l,logits) in [("raw",Logits::Raw),("cos",Logits::Cosine)]{
   for (rn,reduction) in [("mean",Reduction::Mean),("sum",Reduction::Sum)]{
    let n=format!("uwe_{l}_tau{tau}_{rn}"); check(&n,f(&u,&n),Scorer::SoftLateInteraction{temperature,logits,axis:Axis::Target,reduction}); }
   let n=format!("uwe_otheraxis_{l}_tau{tau}_mean"); check(&n,f(&u,&n),Scorer::SoftLateInteraction{temperature,logits,axis:Axis::Query,reduction:Reduction::Mean});
  }
  if tau!="0.5" { for (l,logits) in [("raw",Logits::Raw),("stnorm",Logits::UnitTarget),("cos",Logits::Cosine)]{ let n=format!("soft_{l}_tau{tau}"); check(&n,f(&r,&n),Scorer::SoftPooled{temperature,logits}); } }
 }
 check("maxsim",f(&r,"maxsim"),Scorer::MaxSim{reduction:Reduction::Sum});
 check("cosine",f(&r,"cosine"),Scorer::Cosine);
}
